"""Who is told what: the streams and subscriptions of all clients of this process, fed by all backends.

Change notifications are level triggers ("ask again"), so what is missed while nobody listens need not be kept, and what
waits twice is sent once. No I/O: a ``Stream`` is written by whoever serves it.

Rules of this file
- A modern stream (2026-07-28, ``basic/patterns/subscriptions``) gets what its filter names and nothing else, every
  message with its subscription id. A legacy session gets all list changes, and the resources it subscribed to.
- A session has one stream, the youngest: no message goes out twice.
- Who may not see a route hears nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from gateway.errors import INVALID_PARAMS, InvalidRequest, Overloaded
from gateway.http.filters import LISTS, Filter, ListKind, RequestId, acknowledgement, list_changed, result, updated
from gateway.http.shares import Shares
from gateway.http.streams import MAX_STREAMS, Stream
from gateway.http.watched import Watched
from gateway.models import Change, Principal
from gateway.ports import RouteOf, Sees

COALESCE_SECONDS = 1.0
"""At most one list change of a kind in so many seconds, however a backend flaps."""

MAX_SESSIONS = 10_000
MAX_URIS = 1_000
"""Of one session."""

_SWEEP_SECONDS = 60.0
_OPEN, _STOPPING = b": open\n\n", b": the stream ends here\n\n"


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """Do not call."""
        ...


@dataclass(slots=True, eq=False)
class _Client:
    """A modern stream (``id`` is that of its request), or a legacy session with or without a stream."""

    principal: Principal
    lists: frozenset[ListKind]
    route_of: RouteOf
    sees: Sees
    stream: Stream | None = None
    id: RequestId | None = None
    until: float = 0.0
    missed: dict[bytes, None] = field(default_factory=dict)

    def tell(self, body: bytes) -> None:
        """Now, or when there is a stream again."""
        if self.stream is not None:
            self.stream.put(body)
        elif len(self.missed) < MAX_URIS:
            self.missed[body] = None


class Subscriptions:
    """The hub.

    Args:
        on_count: told the number of open streams whenever it changes.
        on_wanted: told all URIs of a route that anybody watches whenever they change, for ``RouteBackend.watch``.
        clock: monotonic seconds. ``call_later``: as the loop's.
    """

    def __init__(
        self,
        *,
        on_count: Callable[[int], None] = lambda _count: None,
        on_wanted: Callable[[str, frozenset[str]], None] = lambda _route, _uris: None,
        clock: Callable[[], float] = monotonic,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._on_count = on_count
        self._clock = clock
        self._later = call_later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._listeners: set[_Client] = set()
        self._sessions: dict[str, _Client] = {}
        self._streams: set[Stream] = set()
        self._watched: Watched[_Client] = Watched(on_wanted, lambda client: client.principal)
        self._streams_of, self._sessions_of = Shares("streams", 5.0), Shares("sessions", 60.0)
        self._resting: dict[ListKind, Timer] = {}
        self._pending: dict[ListKind, set[str | None]] = {}
        self._sweeper: Timer | None = None
        self._closing = False

    def __len__(self) -> int:
        """Open streams."""
        return len(self._streams)

    def wanted(self, route: str) -> frozenset[str]:
        """The URIs of a route that anybody watches."""
        return self._watched.wanted(route)

    # What clients want

    def asked(self, params: Mapping[str, Any]) -> Filter:
        """See ``ports.Hub``."""
        return Filter.parse(params)

    def listen(
        self,
        request_id: RequestId,
        asked: Filter,
        *,
        principal: Principal,
        route_of: RouteOf,
        sees: Sees,
        seconds: float = float("inf"),
    ) -> AbstractContextManager[Stream]:
        """The stream of one ``subscriptions/listen``; its first message is the acknowledgement of what is honoured.

        URIs without an owner are not honoured. The stream ends gracefully after ``seconds``, such as those that the
        client's token is still good for.

        Raises:
            Overloaded: there are too many streams, or the gateway stops.
            RateLimited: this principal has too many.
        """
        owners = {uri: route for uri in asked.uris if (route := route_of(uri)) is not None}
        honoured = Filter(asked.lists, tuple(owners))
        stream = Stream(acknowledgement(request_id, honoured), result(request_id), seconds=seconds)
        client = _Client(principal, asked.lists, route_of, sees, stream, request_id)
        self._refuse_stream(principal)
        self._watched.refuse_over(principal, len(owners))
        return self._listened(client, stream, owners)

    @contextmanager
    def _listened(self, client: _Client, stream: Stream, owners: Mapping[str, str]) -> Iterator[Stream]:
        with self._opened(stream, client.principal):
            self._watched.add(client, owners)
            self._listeners.add(client)
            try:
                yield stream
            finally:
                self._listeners.discard(client)
                self._watched.remove(client)

    def follow(
        self, session_id: str, *, principal: Principal, sees: Sees, seconds: float = float("inf")
    ) -> AbstractContextManager[Stream]:
        """The GET stream of a legacy session; a former one of the session ends.

        Raises:
            Overloaded: there are too many streams or sessions, or the gateway stops.
            RateLimited: this principal has too many.
        """
        self._refuse_stream(principal)
        self._refuse_session(session_id, principal)
        return self._followed(session_id, principal, sees, seconds)

    @contextmanager
    def _followed(self, session_id: str, principal: Principal, sees: Sees, seconds: float) -> Iterator[Stream]:
        stream = Stream(_OPEN, _STOPPING, seconds=seconds)
        with self._opened(stream, principal):
            client = self._session(session_id, principal, None, sees, seconds)
            former, client.stream = client.stream, stream
            if former is not None:
                former.end()
            for body in client.missed:
                stream.put(body)
            client.missed.clear()
            try:
                yield stream
            finally:
                if client.stream is stream:
                    client.stream = None
                    self._forget_idle(session_id, client)

    def subscribe(
        self, session_id: str, uri: str, *, principal: Principal, route_of: RouteOf, sees: Sees, seconds: float
    ) -> None:
        """``resources/subscribe`` of a legacy session that lives ``seconds`` more.

        Raises:
            InvalidRequest: nobody owns the URI, or the session has too many.
            Overloaded: there are too many sessions, or resources watched.
            RateLimited: of this principal.
        """
        route = route_of(uri)
        if route is None:
            raise InvalidRequest("There is no such resource here.", code=INVALID_PARAMS, status=200)
        client = self._session(session_id, principal, route_of, sees, seconds)
        owners = self._watched.owners(client)
        if uri in owners:
            return
        if len(owners) >= MAX_URIS:
            message = f"A session may subscribe to {MAX_URIS} resources."
            raise InvalidRequest(message, code=INVALID_PARAMS, status=200)
        try:
            self._watched.add(client, {uri: route})
        finally:
            self._forget_idle(session_id, client)

    def unsubscribe(self, session_id: str, uri: str) -> None:
        """``resources/unsubscribe``; nothing happens where there is no such subscription."""
        client = self._sessions.get(session_id)
        if client is not None:
            self._watched.remove(client, [uri])
            self._forget_idle(session_id, client)

    def end_session(self, session_id: str) -> None:
        """A legacy session has ended: its subscriptions and its stream with it."""
        client = self._sessions.get(session_id)
        if client is not None:
            self._forget(session_id, client)
            self._watched.remove(client)
            if client.stream is not None:
                client.stream.end()

    def close(self) -> None:
        """The gateway stops: every stream ends with a last message, and no new one opens."""
        self._closing = True
        for timer in self._resting.values():
            timer.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for stream in list(self._streams):
            stream.end()

    # What has changed

    def changed(self, change: Change) -> None:
        """A backend says so. The catalogue already has it."""
        if change.kind != "resource":
            self._announce(change.kind, change.route)
            return
        concerned = self._watched.concerned(
            change.route, change.uri, lambda client: client.route_of(change.uri) == change.route
        )
        for client in concerned:
            client.tell(updated(change.uri, client.id))

    def catalog_changed(self, kinds: Iterable[ListKind] = LISTS) -> None:
        """The gateway's own rules changed, so lists may have, for anybody; owners of URIs are looked up anew."""
        self._look_up()
        for kind in kinds:
            self._announce(kind, None)

    def _announce(self, kind: ListKind, route: str | None) -> None:
        """At once, and after that once in a while."""
        self._pending.setdefault(kind, set()).add(route)
        if kind not in self._resting and not self._closing:
            self._tell(kind)

    def _tell(self, kind: ListKind) -> None:
        routes = self._pending.pop(kind, None)
        self._resting.pop(kind, None)
        if not routes:
            return
        self._resting[kind] = self._later(COALESCE_SECONDS, lambda: self._tell(kind))
        if kind == "resources":
            self._look_up()
        for client in (*self._listeners, *self._sessions.values()):
            if client.stream is None or kind not in client.lists:
                continue
            if any(route is None or client.sees(route) for route in routes):
                client.tell(list_changed(kind, client.id))

    def _look_up(self) -> None:
        """Routes may have other URIs now, and clients other rights."""
        for client in (*self._listeners, *self._sessions.values()):
            self._watched.move(client, client.route_of)

    # Books

    def _refuse_stream(self, principal: Principal) -> None:
        if self._closing or len(self._streams) >= MAX_STREAMS:
            raise Overloaded(
                "Too many streams are open here; try again later.", retry_after=5.0, rule="overload.streams"
            )
        self._streams_of.refuse_over(principal, MAX_STREAMS)

    @contextmanager
    def _opened(self, stream: Stream, principal: Principal) -> Iterator[None]:
        self._refuse_stream(principal)
        self._streams.add(stream)
        self._streams_of.add(principal, 1)
        self._on_count(len(self._streams))
        try:
            yield
        finally:
            self._streams.discard(stream)
            self._streams_of.add(principal, -1)
            self._on_count(len(self._streams))

    def _refuse_session(self, session_id: str, principal: Principal) -> None:
        if session_id in self._sessions:
            return
        if len(self._sessions) >= MAX_SESSIONS:
            self._sweep()
        if len(self._sessions) >= MAX_SESSIONS:
            message = "Too many sessions follow changes here; try again later."
            raise Overloaded(message, retry_after=60.0, rule="overload.sessions")
        self._sessions_of.refuse_over(principal, MAX_SESSIONS)

    def _session(
        self, session_id: str, principal: Principal, route_of: RouteOf | None, sees: Sees, seconds: float
    ) -> _Client:
        self._refuse_session(session_id, principal)
        client = self._sessions.get(session_id)
        if client is None:
            client = self._sessions[session_id] = _Client(principal, frozenset(LISTS), _nobody, sees)
            self._sessions_of.add(principal, 1)
            if self._sweeper is None and not self._closing:
                self._sweeper = self._later(_SWEEP_SECONDS, self._swept)
        client.sees = sees
        client.route_of = route_of or client.route_of
        client.until = max(client.until, self._clock() + seconds)
        return client

    def _forget_idle(self, session_id: str, client: _Client) -> None:
        if client.stream is None and not self._watched.owners(client) and self._sessions.get(session_id) is client:
            self._forget(session_id, client)

    def _forget(self, session_id: str, client: _Client) -> None:
        del self._sessions[session_id]
        self._sessions_of.add(client.principal, -1)

    def _swept(self) -> None:
        self._sweep()
        self._sweeper = self._later(_SWEEP_SECONDS, self._swept) if self._sessions else None

    def _sweep(self) -> None:
        now = self._clock()
        for session_id in [one for one, client in self._sessions.items() if client.until <= now]:
            self.end_session(session_id)


def _nobody(_uri: str) -> None:
    return None
