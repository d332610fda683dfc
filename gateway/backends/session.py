"""One MCP session with a backend, over the SDK's dispatcher: raw dicts in, raw dicts out.

The SDK's result models drop unknown fields and nulls, so they are not used. A session has an owner task that enters
and leaves the transport, because cancel scopes must be left in the task that entered them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import anyio
import anyio.abc
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext

from gateway.backends import link, questions, verdict
from gateway.backends.asks import missing_capability
from gateway.backends.cause import because
from gateway.backends.greeting import Greeting, Hello
from gateway.backends.introduction import ORIGINAL_CLIENT_INFO, SUBSCRIPTION_ID
from gateway.backends.listing import not_offered
from gateway.backends.running import Running, plain, unheard
from gateway.backends.senders import Callers, Origin, exchange_of, level_of, origin_of
from gateway.backends.wire import Exchange, Requests, Signals, Transport
from gateway.errors import METHOD_NOT_FOUND, BackendUnavailable
from gateway.models import BackendReply, BackendRequest, JsonObject
from gateway.protocol.clients import LOG_LEVEL
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION

logger = logging.getLogger(__name__)

_CLOSING = 6.0
"""Seconds until a session that does not end by itself is torn down."""

_SET_LEVEL = 5.0

_CHANGES = {f"notifications/{kind}/list_changed": kind for kind in ("tools", "prompts", "resources")}


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a session tells: ``on_change`` the kind and URI of a ``models.Change``, ``on_gap`` that some may have been
    missed, ``on_end`` once, that it has ended for whatever reason, ``on_unclear`` that the backend asked something
    without saying in which call.
    """

    on_end: Callable[[Session], None]
    on_change: Callable[[str, str], None] = _nothing
    on_gap: Callable[[], None] = _nothing
    on_unclear: Callable[[], None] = _nothing


class Session:
    """A session of one route. ``start`` it once, ``request`` while it is ``alive``, ``aclose`` it."""

    def __init__(self, route: str, transport: Transport, hello: Hello, hooks: Hooks) -> None:
        self.greeting: Greeting = Greeting()
        self.used = monotonic()
        self._route = route
        self._transport = transport
        self._hello = hello
        self._hooks = hooks
        self._level: str | None = None
        self._acknowledgements: dict[str, asyncio.Event] = {}
        self._callers = Callers(route, hooks.on_unclear)
        self._listens = itertools.count(1)
        self._retired = False
        self._closing = asyncio.Event()
        self._gone = asyncio.Event()
        self._signals = Signals()
        self._requests: Requests | None = None
        self._fault: BaseException | None = None
        self._ready: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._dispatcher: JSONRPCDispatcher[Origin] | None = None

    @property
    def alive(self) -> bool:
        """Whether a request may be sent."""
        ended = self._retired or self._gone.is_set() or self._closing.is_set()
        return self._dispatcher is not None and not ended

    @property
    def running(self) -> int:
        """Requests that wait for their answer."""
        return len(self._callers)

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
        if not self._callers:
            self._closing.set()

    async def request(self, running: Running) -> BackendReply:
        """As ``ports.Backend.request``.

        Raises:
            ConnectionLost: the connection is gone; ``dispatched`` false if it was before the request.
            SessionEnded: the backend no longer knows the session.
            BackendTimeout: the request was cancelled.
            BackendUnavailable: the backend gave no usable answer.
        """
        self._callers.add(running)
        try:
            await self._set_level(running.request)
            return await self._within(running, self._params(running))
        finally:
            running.refuse("The call has ended")
            self.used = monotonic()
            self._callers.remove(running)
            if self._retired:
                self.retire()

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> JsonObject:
        """A request of the gateway's own, of which only a result is of use; wait ``seconds`` for it.

        Raises:
            NotOffered: the backend has no such method.
            BackendUnavailable: there was none.
        """
        request = BackendRequest(method, params, verdict.NOBODY, timeout=seconds, max_timeout=seconds)
        reply = await self.request(Running(request, unheard))
        if reply.error is not None and reply.error["code"] == METHOD_NOT_FOUND:
            raise not_offered(self._route)
        if reply.result is None:
            raise link.unusable(self._route)
        return reply.result

    async def listen(self, uris: frozenset[str], acknowledged: asyncio.Event) -> None:
        """Hear of changes of the lists and of ``uris`` until the backend ends it (``subscriptions/listen``).

        Raises:
            NotOffered: the backend has no such method.
            BackendUnavailable: the session has ended.
        """
        if self._dispatcher is None:
            raise link.refused(self._route)
        name = f"listen-{next(self._listens)}"
        wanted: JsonObject = {f"{kind}ListChanged": True for kind in _CHANGES.values()}
        if uris:
            wanted["resourceSubscriptions"] = sorted(uris)
        params = {"notifications": wanted, "_meta": self._envelope({}, None)}
        self._acknowledgements[name] = acknowledged
        try:
            await self._dispatcher.send_raw_request("subscriptions/listen", params, {"request_id": name})
        except MCPError as error:
            raise (not_offered if error.code == METHOD_NOT_FOUND else link.broken)(self._route) from None
        finally:
            self._acknowledgements.pop(name, None)

    async def _set_level(self, request: BackendRequest) -> None:
        """A legacy session has one level: the least severe that any of its calls wants."""
        if request.log_level is None or self.greeting.era == "modern" or "logging" not in self.greeting.capabilities:
            return
        level = self._callers.level
        if level is None or level == self._level:
            return
        self._level = level
        try:
            await self.ask("logging/setLevel", {"level": level}, _SET_LEVEL)
        except BackendUnavailable as failure:
            self._level = None
            if not failure.dispatched and self._retired:
                raise

    async def _within(self, running: Running, params: JsonObject) -> BackendReply:
        exchange = running.exchange = self._transport.begin(running.request.principal)
        started = monotonic()
        answered = False
        try:
            async with asyncio.timeout(running.first) as running.scope:
                result, error = await self._send(running.request.method, params, exchange)
            answered = True
        except TimeoutError:
            raise link.late(self._route, monotonic() - started) from None
        finally:
            running.scope = None
            self._transport.end(exchange)
            if not answered:
                exchange.abandon()
        seconds = monotonic() - started
        if error is None:
            return BackendReply(result, None, seconds, running.undeclared)
        reply_error = verdict.of_error(self._route, exchange, error, retire=self.retire, reason=self._signals.reason)
        return BackendReply(None, reply_error, seconds, running.undeclared)

    async def _send(
        self, method: str, params: JsonObject, exchange: Exchange, *, cancellable: bool = True
    ) -> tuple[JsonObject | None, MCPError | None]:
        if not self.alive or self._dispatcher is None:
            raise link.refused(self._route)
        if self._requests is not None:
            return await self._requests.send(method, params, exchange, self._told)
        params = plain(params)
        options: CallOptions = {"cancel_on_abandon": cancellable}
        revision = self.greeting.revision  # only HTTP looks at it
        if headers := {MCP_PROTOCOL_VERSION_HEADER: revision, **exchange.headers} if revision else exchange.headers:
            options["headers"] = headers
        try:
            return await self._dispatcher.send_raw_request(method, params, options), None
        except MCPError as error:
            return None, error

    def _params(self, running: Running) -> JsonObject:
        request, modern = running.request, self.greeting.era == "modern"
        params, meta = dict(request.params), dict(request.meta)
        if modern:
            meta.update(self._envelope(request.capabilities, request.client_info))
            if request.log_level is not None:
                meta[LOG_LEVEL] = request.log_level
            if request.answers is not None:
                params["inputResponses"] = plain(request.answers)
            if request.state is not None:
                params["requestState"] = request.state
        if request.wants_progress:
            meta["progressToken"] = running.token
        if meta:
            params["_meta"] = meta
        return params

    def _envelope(self, capabilities: Mapping[str, Any], client_info: Mapping[str, Any] | None) -> JsonObject:
        meta: JsonObject = {
            PROTOCOL_VERSION: self.greeting.revision,
            CLIENT_CAPABILITIES: dict(capabilities),
            CLIENT_INFO: self._hello.client_info,
        }
        if client_info is not None:
            meta[ORIGINAL_CLIENT_INFO] = dict(client_info)
        return meta

    async def _own(self) -> None:
        assert self._ready is not None
        try:
            async with self._transport.open() as streams, anyio.create_task_group() as group:
                dispatcher = JSONRPCDispatcher[Origin](streams.read, streams.write, transport_builder=origin_of)
                self._signals = streams.signals
                self._signals.on_gap, self._signals.on_forgotten = self._hooks.on_gap, self.retire
                await group.start(self._pump, dispatcher)
                self._dispatcher, self._gone = dispatcher, streams.gone
                try:
                    self.greeting = await self._hello.say(self._greet, self._notify)
                except BackendUnavailable as failure:
                    self._ready.set_exception(because(failure, self._signals.reason))
                else:
                    if self.greeting.era == "legacy":
                        self._requests = streams.requests
                    self._ready.set_result(None)
                    await self._closing.wait()
                group.cancel_scope.cancel()
        except* BackendUnavailable as failures:
            if not self._ready.done():
                self._ready.set_exception(failures.exceptions[0])
        except* (OSError, ValueError, *verdict.HTTP_ERRORS) as errors:
            self._fault = errors.exceptions[0]
            logger.debug("the session of %s could not be opened: %r", self._route, errors.exceptions)

    async def _pump(self, dispatcher: JSONRPCDispatcher[Origin], *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            await dispatcher.run(self._answer, self._message, self._heard, task_status=task_status)
        finally:
            self._closing.set()

    def _ended(self, owner: asyncio.Task[None]) -> None:
        self._closing.set()
        error = None if owner.cancelled() else owner.exception()
        if error is not None:
            logger.warning("a session of %s ended with %s", self._route, type(error).__name__)
            logger.debug("the session of %s ended", self._route, exc_info=error)
        if self._ready is not None and not self._ready.done():
            failure = link.refused(self._route)
            failure.__cause__ = self._fault
            self._ready.set_exception(failure)
            self._ready.exception()
        self._hooks.on_end(self)

    async def _greet(self, method: str, params: JsonObject, seconds: float) -> verdict.Answer:
        """One step of the greeting, never cancelled towards the backend; what is not waited for is let go of here."""
        exchange = self._transport.begin(verdict.NOBODY)
        answered = False
        try:
            async with asyncio.timeout(seconds):
                result, error = await self._send(method, params, exchange, cancellable=False)
            answered = True
            return verdict.Answer(result, error, exchange)
        except TimeoutError:
            return verdict.Answer(None, None, exchange)
        finally:
            self._transport.end(exchange)
            if not answered:
                exchange.abandon()

    async def _notify(self, method: str, revision: str) -> None:
        assert self._dispatcher is not None
        await self._dispatcher.notify(method, None, {"headers": {MCP_PROTOCOL_VERSION_HEADER: revision}})

    async def _answer(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> JsonObject:
        """A request of the backend: the call that it belongs to asks its client."""
        if method == "ping":
            return {}
        params = params or {}
        refusal = questions.undeclared(self._hello.capabilities, method, params)
        if self.greeting.era == "modern":
            raise MCPError(METHOD_NOT_FOUND, f"{method} is not supported")
        if refusal is not None:
            if refusal.lacking:
                self._callers.lack(exchange_of(context), missing_capability(self._route, refusal.lacking))
            raise MCPError(refusal.code, refusal.message)
        return await self._callers.asker(exchange_of(context)).ask(method, params)

    def _heard(self, method: str, params: Mapping[str, Any] | None) -> bool:
        params = params or {}
        if method == "notifications/message":
            return False
        if method == "notifications/progress":
            self._callers.progressed(params)
        elif method in _CHANGES:
            self._hooks.on_change(_CHANGES[method], "")
        elif method == "notifications/resources/updated" and isinstance(params.get("uri"), str):
            self._hooks.on_change("resource", params["uri"])
        elif method == "notifications/subscriptions/acknowledged":
            meta = params.get("_meta")
            name = meta.get(SUBSCRIPTION_ID) if isinstance(meta, dict) else None
            acknowledged = self._acknowledgements.get(name) if isinstance(name, str) else None
            if acknowledged is not None:
                acknowledged.set()
        return True

    async def _message(
        self, context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> None:
        self._told(method, params or {}, exchange_of(context))

    def _told(self, method: str, params: Mapping[str, Any], exchange: Exchange | None) -> None:
        if method != "notifications/message":
            self._heard(method, params)
            return
        running = self._callers.logs_to(exchange, level_of(params))
        if running is not None:
            running.notify(method, params)
