"""To which call does a message of the backend belong? Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.dispatcher import DispatchContext
from mcp.shared.message import MessageMetadata, ServerMessageMetadata
from mcp.shared.transport_context import TransportContext

from gateway.backends.running import Running
from gateway.backends.wire import Exchange
from gateway.protocol.clients import LOG_LEVELS


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


def logs_to(calls: Collection[Running], exchange: Exchange | None, level: int) -> Running | None:
    """The call that a log message is for: the one it came with, or else the only one there is; if it wants it."""
    own = [running for running in calls if exchange is not None and running.exchange is exchange] or list(calls)
    if len(own) != 1 or own[0].request.log_level not in LOG_LEVELS:
        return None
    return own[0] if level >= LOG_LEVELS.index(own[0].request.log_level) else None
