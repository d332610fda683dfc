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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from gateway.errors import INVALID_PARAMS, InvalidRequest, Overloaded
from gateway.http.filters import LISTS, Filter, ListKind, RequestId, acknowledgement, list_changed, result, updated
from gateway.http.streams import MAX_STREAMS, Stream
from gateway.models import Change

COALESCE_SECONDS = 1.0
"""At most one list change of a kind in so many seconds, however a backend flaps."""

MAX_SESSIONS = 10_000
MAX_URIS = 1_000
"""Of one session."""

_SWEEP_SECONDS = 60.0
_OPEN, _STOPPING = b": open\n\n", b": the gateway is stopping\n\n"

RouteOf = Callable[[str], str | None]
"""The route that answers for a URI, by the present rules; None where there is none that this client may read."""


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """Do not call."""
        ...


@dataclass(slots=True, eq=False)
class _Client:
    """A modern stream, or a legacy session with or without a stream."""

    lists: frozenset[ListKind]
    uris: dict[str, str | None]
    route_of: RouteOf
    sees: Callable[[str], bool]
    stream: Stream | None = None
    id: RequestId | None = None
    until: float = float("inf")
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
        self._on_wanted = on_wanted
        self._clock = clock
        self._later = call_later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._listeners: set[_Client] = set()
        self._sessions: dict[str, _Client] = {}
        self._streams: set[Stream] = set()
        self._watchers: dict[str, set[_Client]] = {}
        self._wanted: dict[str, Counter[str]] = {}
        self._resting: dict[ListKind, Timer] = {}
        self._pending: dict[ListKind, set[str | None]] = {}
        self._sweeper: Timer | None = None
        self._closing = False

    def __len__(self) -> int:
        """Open streams."""
        return len(self._streams)

    def wanted(self, route: str) -> frozenset[str]:
        """The URIs of a route that anybody watches."""
        return frozenset(self._wanted.get(route, ()))

    # What clients want

    @contextmanager
    def listen(
        self,
        request_id: RequestId,
        asked: Filter,
        *,
        route_of: RouteOf,
        sees: Callable[[str], bool],
        seconds: float = float("inf"),
    ) -> Iterator[Stream]:
        """The stream of one ``subscriptions/listen``; its first message is the acknowledgement of what is honoured.

        URIs without an owner are not honoured. ``sees`` says whether a route concerns the client at all. The stream
        ends gracefully after ``seconds``, such as those of the client's token.

        Raises:
            Overloaded: there are too many streams, or the gateway stops.
        """
        uris = {uri: route for uri in asked.uris if (route := route_of(uri)) is not None}
        honoured = Filter(asked.lists, tuple(uris))
        stream = Stream(acknowledgement(request_id, honoured), result(request_id), seconds=seconds)
        client = _Client(asked.lists, dict(uris), route_of, sees, stream, request_id)
        self._open(stream)
        self._listeners.add(client)
        self._watch(client, uris)
        try:
            yield stream
        finally:
            self._listeners.discard(client)
            self._unwatch(client, list(client.uris))
            self._closed(stream)

    @contextmanager
    def follow(
        self, session_id: str, *, sees: Callable[[str], bool], seconds: float = float("inf")
    ) -> Iterator[Stream]:
        """The GET stream of a legacy session; a former one of the session ends.

        Raises:
            Overloaded: there are too many streams or sessions, or the gateway stops.
        """
        stream = Stream(_OPEN, _STOPPING, seconds=seconds)
        client = self._session(session_id, lambda _uri: None, sees, seconds)
        client.sees = sees
        self._open(stream)
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
                if not client.uris and self._sessions.get(session_id) is client:
                    del self._sessions[session_id]
            self._closed(stream)

    def subscribe(
        self, session_id: str, uri: str, *, route_of: RouteOf, sees: Callable[[str], bool], seconds: float
    ) -> None:
        """``resources/subscribe`` of a legacy session that lives ``seconds`` more.

        Raises:
            InvalidRequest: nobody owns the URI, or the session has too many.
            Overloaded: there are too many sessions.
        """
        route = route_of(uri)
        if route is None:
            raise InvalidRequest("There is no such resource here.", code=INVALID_PARAMS, status=200)
        client = self._session(session_id, route_of, sees, seconds)
        if len(client.uris) >= MAX_URIS and uri not in client.uris:
            message = f"A session may subscribe to {MAX_URIS} resources."
            raise InvalidRequest(message, code=INVALID_PARAMS, status=200)
        client.route_of, client.sees = route_of, sees
        if uri not in client.uris:
            client.uris[uri] = route
            self._watch(client, {uri: route})

    def unsubscribe(self, session_id: str, uri: str) -> None:
        """``resources/unsubscribe``; nothing happens where there is no such subscription."""
        client = self._sessions.get(session_id)
        if client is not None and uri in client.uris:
            self._unwatch(client, [uri])
            if not client.uris and client.stream is None:
                del self._sessions[session_id]

    def end_session(self, session_id: str) -> None:
        """A legacy session has ended: its subscriptions and its stream with it."""
        client = self._sessions.pop(session_id, None)
        if client is not None:
            self._unwatch(client, list(client.uris))
            if client.stream is not None:
                client.stream.end()

    def close(self) -> None:
        """The gateway stops: every stream ends with a last message, and no new one opens."""
        self._closing = True
        for timer in (*self._resting.values(), *([self._sweeper] if self._sweeper else [])):
            timer.cancel()
        for stream in list(self._streams):
            stream.end()

    # What has changed

    def changed(self, change: Change) -> None:
        """A backend says so. The catalogue already has it."""
        if change.kind == "resource":
            self._updated(change.route, change.uri)
        else:
            self._announce(change.kind, change.route)

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
        for client in (*self._listeners, *(one for one in self._sessions.values() if one.stream is not None)):
            if kind in client.lists and any(route is None or client.sees(route) for route in routes):
                client.tell(list_changed(kind, client.id))

    def _updated(self, route: str, uri: str) -> None:
        """Tell who subscribed to it or to what it is a part of."""
        watchers = self._watchers.get(route, ())
        concerned = [client for client in watchers if any(_covers(own, uri) for own in _of(client, route))]
        if not concerned:  # a part of something whose URI does not show it: whoever may read it decides
            concerned = [client for client in watchers if client.route_of(uri) == route]
        for client in concerned:
            client.tell(updated(uri, client.id))

    # Books

    def _open(self, stream: Stream) -> None:
        if self._closing or len(self._streams) >= MAX_STREAMS:
            raise Overloaded("Too many streams are open here; try again later.", retry_after=5.0)
        self._streams.add(stream)
        self._on_count(len(self._streams))

    def _closed(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._on_count(len(self._streams))

    def _session(self, session_id: str, route_of: RouteOf, sees: Callable[[str], bool], seconds: float) -> _Client:
        client = self._sessions.get(session_id)
        if client is None:
            if len(self._sessions) >= MAX_SESSIONS:
                self._sweep()
            if len(self._sessions) >= MAX_SESSIONS:
                raise Overloaded("Too many sessions follow changes here; try again later.", retry_after=60.0)
            client = self._sessions[session_id] = _Client(frozenset(LISTS), {}, route_of, sees)
            if self._sweeper is None and not self._closing:
                self._sweeper = self._later(_SWEEP_SECONDS, self._swept)
        client.until = self._clock() + seconds
        return client

    def _swept(self) -> None:
        self._sweep()
        self._sweeper = self._later(_SWEEP_SECONDS, self._swept) if self._sessions else None

    def _sweep(self) -> None:
        now = self._clock()
        for session_id in [one for one, client in self._sessions.items() if client.until <= now]:
            self.end_session(session_id)

    def _look_up(self) -> None:
        """Routes may have other URIs now, and clients other rights."""
        for client in (*self._listeners, *self._sessions.values()):
            moved = {uri: client.route_of(uri) for uri in client.uris}
            moved = {uri: route for uri, route in moved.items() if route != client.uris[uri]}
            if moved:
                self._unwatch(client, list(moved), forget=False)
                client.uris.update(moved)
                self._watch(client, moved)

    def _watch(self, client: _Client, uris: Mapping[str, str | None]) -> None:
        grown = set()
        for uri, route in uris.items():
            if route is not None:
                self._watchers.setdefault(route, set()).add(client)
                counts = self._wanted.setdefault(route, Counter())
                counts[uri] += 1
                if counts[uri] == 1:
                    grown.add(route)
        for route in sorted(grown):
            self._on_wanted(route, self.wanted(route))

    def _unwatch(self, client: _Client, uris: list[str], *, forget: bool = True) -> None:
        shrunk = set()
        for uri in uris:
            route = client.uris[uri]
            if forget:
                del client.uris[uri]
            else:
                client.uris[uri] = None
            if route is not None:
                counts = self._wanted[route]
                counts[uri] -= 1
                if not counts[uri]:
                    del counts[uri]
                    shrunk.add(route)
                if not _of(client, route):
                    self._watchers[route].discard(client)
        for route in sorted(shrunk):
            if not self._wanted[route]:
                del self._wanted[route], self._watchers[route]
            self._on_wanted(route, self.wanted(route))


def _of(client: _Client, route: str) -> list[str]:
    return [uri for uri, owner in client.uris.items() if owner == route]


def _covers(subscribed: str, uri: str) -> bool:
    """Whether ``uri`` is the one subscribed to, or lies below it."""
    if not uri.startswith(subscribed):
        return False
    rest = uri[len(subscribed) :]
    return not rest or subscribed.endswith("/") or rest[0] in "/?#"
