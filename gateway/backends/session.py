"""One MCP session with a backend, over the SDK's dispatcher: raw dicts in, raw dicts out.

The SDK's result models drop unknown fields and nulls, so they are not used. A session has an owner task that enters
and leaves the transport, because cancel scopes must be left in the task that entered them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import anyio
import anyio.abc
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext

from gateway.backends import link, verdict
from gateway.backends.greeting import Greeting, Hello
from gateway.backends.modern import ORIGINAL_CLIENT_INFO
from gateway.backends.running import Running, plain
from gateway.backends.wire import Exchange, Transport
from gateway.errors import METHOD_NOT_FOUND, BackendUnavailable
from gateway.models import BackendReply, BackendRequest, JsonObject
from gateway.ports import Notify
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION

logger = logging.getLogger(__name__)

_CLOSING = 6.0
"""Seconds until a session that does not end by itself is torn down."""


class Session:
    """A session of one route. ``start`` it once, ``request`` while it is ``alive``, ``aclose`` it.

    ``on_list_changed`` is called when the backend says so, ``on_end`` once, when the session has ended for whatever
    reason.
    """

    def __init__(
        self,
        route: str,
        transport: Transport,
        hello: Hello,
        *,
        on_list_changed: Callable[[], None],
        on_end: Callable[[Session], None],
    ) -> None:
        self.greeting: Greeting = Greeting()
        self.used = monotonic()
        self._route = route
        self._transport = transport
        self._hello = hello
        self._on_list_changed = on_list_changed
        self._on_end = on_end
        self._calls: dict[int, Running] = {}
        self._tokens = itertools.count(1)
        self._retired = False
        self._closing = asyncio.Event()
        self._gone = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._dispatcher: JSONRPCDispatcher[TransportContext] | None = None

    @property
    def alive(self) -> bool:
        """Whether a request may be sent."""
        ended = self._retired or self._gone.is_set() or self._closing.is_set()
        return self._dispatcher is not None and not ended

    @property
    def running(self) -> int:
        """Requests that wait for their answer."""
        return len(self._calls)

    async def start(self) -> None:
        """Connect and say hello.

        Raises:
            BackendUnavailable: or what ``Hello.say`` raises; nothing is left behind.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(), name=f"session of {self._route}")
        self._owner.add_done_callback(self._ended)
        try:
            await asyncio.shield(self._ready)
        finally:
            if not self.greeting.revision:
                await self.aclose()

    async def aclose(self) -> None:
        """End the session and wait until everything of it is gone. Idempotent."""
        self._closing.set()
        if self._owner is None or self._owner.done():
            return
        await asyncio.wait({self._owner}, timeout=_CLOSING)
        if not self._owner.done():
            self._owner.cancel()
            await asyncio.wait({self._owner}, timeout=1.0)

    def retire(self) -> None:
        """Send nothing more; the session ends with what still runs."""
        self._retired = True
        if not self._calls:
            self._closing.set()

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """As ``ports.Backend.request``.

        Raises:
            ConnectionLost: the connection is gone; ``dispatched`` false if it was before the request.
            SessionEnded: the backend no longer knows the session.
            BackendTimeout: the request was cancelled.
            BackendUnavailable: the backend gave no usable answer.
        """
        token = next(self._tokens)
        running = Running(request, notify, token)
        params = plain(request.params)
        meta = self._meta(request)
        if request.wants_progress:
            meta["progressToken"] = token
        if meta:
            params["_meta"] = meta
        self._calls[token] = running
        try:
            return await self._within(running, params)
        finally:
            self.used = monotonic()
            del self._calls[token]
            if self._retired:
                self.retire()

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> JsonObject:
        """A request of the gateway's own, of which only a result is of use; wait ``seconds`` for it.

        Raises:
            BackendUnavailable: there was none.
        """
        request = BackendRequest(method, params, verdict.NOBODY, timeout=seconds, max_timeout=seconds)
        reply = await self.request(request, _unheard)
        if reply.result is None:
            raise link.unusable(self._route)
        return reply.result

    async def _within(self, running: Running, params: JsonObject) -> BackendReply:
        exchange = self._transport.begin()
        started = monotonic()
        answered = False
        try:
            async with asyncio.timeout(running.first) as running.scope:
                result, error = await self._send(running.request.method, params, exchange)
            answered = True
        except TimeoutError:
            raise link.late(self._route, monotonic() - started) from None
        finally:
            self._transport.end(exchange)
            if not answered:
                exchange.abandon()
        seconds = monotonic() - started
        if error is None:
            return BackendReply(result, None, seconds)
        reply_error = verdict.of_error(self._route, exchange, error, retire=self.retire)
        return BackendReply(None, reply_error, seconds)

    async def _send(
        self, method: str, params: JsonObject, exchange: Exchange, *, cancellable: bool = True
    ) -> tuple[JsonObject | None, MCPError | None]:
        if not self.alive or self._dispatcher is None:
            raise link.refused(self._route)
        options: CallOptions = {"cancel_on_abandon": cancellable}
        headers = {**self._headers(), **exchange.headers}
        if headers:
            options["headers"] = headers
        try:
            return await self._dispatcher.send_raw_request(method, params, options), None
        except MCPError as error:
            return None, error

    def _headers(self) -> dict[str, str]:
        # Only HTTP looks at them.
        revision = self.greeting.revision
        return {MCP_PROTOCOL_VERSION_HEADER: revision} if revision else {}

    def _meta(self, request: BackendRequest) -> JsonObject:
        meta = dict(request.meta)
        if self.greeting.era == "modern":
            meta[PROTOCOL_VERSION] = self.greeting.revision
            meta[CLIENT_CAPABILITIES] = dict(request.capabilities)
            meta[CLIENT_INFO] = self._hello.client_info
            if request.client_info is not None:
                meta[ORIGINAL_CLIENT_INFO] = dict(request.client_info)
        return meta

    async def _own(self) -> None:
        assert self._ready is not None
        try:
            async with self._transport.open() as streams, anyio.create_task_group() as group:
                dispatcher = JSONRPCDispatcher[TransportContext](streams.read, streams.write)
                await group.start(self._pump, dispatcher)
                self._dispatcher, self._gone = dispatcher, streams.gone
                try:
                    self.greeting = await self._hello.say(self._greet, self._notify)
                except BackendUnavailable as failure:
                    self._ready.set_exception(failure)
                else:
                    self._ready.set_result(None)
                    await self._closing.wait()
                group.cancel_scope.cancel()
        except* (OSError, ValueError, *verdict.HTTP_ERRORS) as errors:
            logger.debug("the session of %s could not be opened: %r", self._route, errors.exceptions)

    async def _pump(
        self, dispatcher: JSONRPCDispatcher[TransportContext], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        try:
            await dispatcher.run(self._answer, _ignore, self._heard, task_status=task_status)
        finally:
            self._closing.set()

    def _ended(self, owner: asyncio.Task[None]) -> None:
        self._closing.set()
        error = None if owner.cancelled() else owner.exception()
        if error is not None:
            logger.warning("a session of %s ended with %s", self._route, type(error).__name__)
            logger.debug("the session of %s ended", self._route, exc_info=error)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(link.refused(self._route))
            self._ready.exception()
        self._on_end(self)

    async def _greet(self, method: str, params: JsonObject, seconds: float) -> verdict.Answer:
        """One step of the greeting, never cancelled towards the backend."""
        exchange = self._transport.begin()
        try:
            async with asyncio.timeout(seconds):
                result, error = await self._send(method, params, exchange, cancellable=False)
            return verdict.Answer(result, error, exchange)
        except TimeoutError:
            exchange.abandon()
            return verdict.Answer(None, None, exchange)
        finally:
            self._transport.end(exchange)

    async def _notify(self, method: str, revision: str) -> None:
        assert self._dispatcher is not None
        await self._dispatcher.notify(method, None, {"headers": {MCP_PROTOCOL_VERSION_HEADER: revision}})

    async def _answer(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> JsonObject:
        """A request of the backend. This is the place where a call will be parked for elicitation and sampling."""
        if method == "ping":
            return {}
        raise MCPError(METHOD_NOT_FOUND, f"{method} is not supported")

    def _heard(self, method: str, params: Mapping[str, Any] | None) -> bool:
        if method == "notifications/progress":
            token = (params or {}).get("progressToken")
            running = self._calls.get(token) if isinstance(token, int) else None
            if running is not None:
                running.progressed(params or {})
        elif method == "notifications/message":
            # On a shared stream a message cannot be told to belong to one of several calls.
            if len(self._calls) == 1:
                next(iter(self._calls.values())).notify(method, params or {})
        elif method.endswith("/list_changed"):
            self._on_list_changed()
        return True


def _unheard(method: str, params: Mapping[str, Any]) -> None:
    return None


async def _ignore(context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None) -> None:
    return None
