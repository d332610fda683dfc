"""To which call does a message of the backend belong? Pure."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import MessageMetadata, ServerMessageMetadata
from mcp.shared.transport_context import TransportContext

from gateway.backends.running import Running
from gateway.backends.wire import Exchange
from gateway.errors import INTERNAL_ERROR
from gateway.models import JsonObject
from gateway.protocol.clients import LOG_LEVELS

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, frozen=True)
class Origin(TransportContext):
    """``exchange`` is the request whose answer stream brought the message; None where that cannot be told."""

    exchange: Exchange | None


def origin_of(metadata: MessageMetadata) -> Origin:
    """From what the transport attached."""
    context = metadata.request_context if isinstance(metadata, ServerMessageMetadata) else None
    return Origin(kind="mcp", can_send_request=True, exchange=context if isinstance(context, Exchange) else None)


def exchange_of(context: DispatchContext[TransportContext]) -> Exchange | None:
    """The exchange that a message came with, if it can be told."""
    return context.transport.exchange if isinstance(context.transport, Origin) else None


def level_of(params: Mapping[str, Any]) -> int:
    """How severe a log message is; -1 for what is no level."""
    level = params.get("level")
    return LOG_LEVELS.index(level) if level in LOG_LEVELS else -1


def lowest(levels: Iterable[str | None]) -> str | None:
    """The least severe of these levels."""
    known = [level for level in levels if level in LOG_LEVELS]
    return min(known, key=LOG_LEVELS.index) if known else None


class Callers:
    """The calls that run in one session with the backend of a route.

    ``on_unclear`` is told that the backend asked something without saying in which call.
    """

    def __init__(self, route: str, on_unclear: Callable[[], None]) -> None:
        self._route = route
        self._on_unclear = on_unclear
        self._calls: dict[int, Running] = {}
        self._tokens = itertools.count(1)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def level(self) -> str | None:
        """The least severe log messages that any of them wants."""
        return lowest(running.request.log_level for running in self._calls.values())

    def add(self, running: Running) -> None:
        """It runs from now on, and has a token of its own."""
        running.token = next(self._tokens)
        self._calls[running.token] = running

    def remove(self, running: Running) -> None:
        """It has ended."""
        del self._calls[running.token]

    def progressed(self, params: Mapping[str, Any]) -> None:
        """Progress came; it says of which call."""
        token = params.get("progressToken")
        running = self._calls.get(token) if isinstance(token, int) else None
        if running is not None:
            running.progressed(params)

    def logs_to(self, exchange: Exchange | None, level: int) -> Running | None:
        """The call that a log message is for: the one it came with, or else the only one there is; if it wants it."""
        own = self._own(exchange) or list(self._calls.values())
        if len(own) != 1 or own[0].request.log_level not in LOG_LEVELS:
            return None
        return own[0] if level >= LOG_LEVELS.index(own[0].request.log_level) else None

    def asker(self, exchange: Exchange | None) -> Running:
        """The call in which the backend asks something.

        Raises:
            MCPError: what the backend is told: there is none, or it cannot be told which one it is.
        """
        own = self._own(exchange)
        if not own:
            self._on_unclear()
        callers = [running for running in own or self._calls.values() if running.may_ask]
        if len(callers) == 1:
            return callers[0]
        if callers:
            logger.warning("%s asks while %d calls run, and not in which", self._route, len(callers))
            raise MCPError(INTERNAL_ERROR, "This client cannot tell which call asks; try the call again")
        raise MCPError(INTERNAL_ERROR, "This client answers only within a call that may ask")

    def lack(self, exchange: Exchange | None, undeclared: JsonObject) -> None:
        """A question was refused for what the client did not declare: it is told, if it can be told which one it is."""
        callers = self._own(exchange) or list(self._calls.values())
        if len(callers) == 1:
            callers[0].undeclared = undeclared

    def _own(self, exchange: Exchange | None) -> list[Running]:
        return [running for running in self._calls.values() if exchange is not None and running.exchange is exchange]
