"""Who is told what. No sockets; time is ours."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway.errors import InvalidRequest, Overloaded
from gateway.http import subscriptions
from gateway.http.filters import Filter
from gateway.http.streams import Stream
from gateway.http.subscriptions import Subscriptions
from gateway.models import Change

ID = "io.modelcontextprotocol/subscriptionId"
LISTS = Filter(frozenset({"tools", "prompts", "resources"}))


class Timer:
    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call, self.live = due, call, True

    def cancel(self) -> None:
        self.live = False


class World:
    """The hub, its clock, and what it said to others. ``owners`` is who answers for a URI; ``hidden`` is not seen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.counts: list[int] = []
        self.wanted: dict[str, frozenset[str]] = {}
        self.owners = {"a:1": "r", "a:2": "r", "b:1": "s"}
        self.hidden: set[str] = set()
        self.hub = Subscriptions(
            on_count=self.counts.append,
            on_wanted=self.wanted.__setitem__,
            clock=lambda: self.now,
            call_later=self.call_later,
        )

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.due <= self.now]
        self.timers = [timer for timer in self.timers if timer.due > self.now]
        for timer in due:
            if timer.live:
                timer.call()

    def sees(self, route: str) -> bool:
        return route not in self.hidden

    @contextmanager
    def listen(self, asked: Filter = LISTS, request_id: Any = 1) -> Iterator[Stream]:
        with self.hub.listen(request_id, asked, route_of=self.owners.get, sees=self.sees) as stream:
            yield stream

    def subscribe(self, session: str, uri: str, seconds: float = 100.0) -> None:
        self.hub.subscribe(session, uri, route_of=self.owners.get, sees=self.sees, seconds=seconds)

    @contextmanager
    def follow(self, session: str, seconds: float = 100.0) -> Iterator[Stream]:
        with self.hub.follow(session, sees=self.sees, seconds=seconds) as stream:
            yield stream


@pytest.fixture
def world() -> World:
    return World()


async def read(stream: Stream) -> list[Any]:
    """The messages that wait; none if nothing does."""
    if not stream._waiting and not stream._closing:
        return []
    body, _ = await asyncio.wait_for(stream.next(), 1)
    return [json.loads(part.split(b"data: ", 1)[1]) for part in body.split(b"\n\n") if b"data: " in part]


async def methods(stream: Stream) -> list[str]:
    return [message["method"].removeprefix("notifications/") for message in await read(stream)]


async def test_the_first_message_acknowledges_what_is_honoured_under_the_clients_id(world: World) -> None:
    world.hub.changed(Change("r", "tools"))
    with world.listen(Filter(frozenset({"tools"}), ("a:1", "nobody:1")), request_id="7") as stream:
        world.hub.changed(Change("r", "resource", "a:1"))
        acknowledged, changed = await read(stream)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"] == {
        "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]},
        "_meta": {ID: "7"},
    }
    assert changed["params"] == {"uri": "a:1", "_meta": {ID: "7"}}


async def test_nothing_is_told_that_was_not_asked_for(world: World) -> None:
    with world.listen(Filter(frozenset({"prompts"}), ("a:1",))) as stream:
        await read(stream)
        world.hub.catalog_changed(["tools", "resources"])
        world.hub.changed(Change("r", "tools"))
        world.hub.changed(Change("s", "resource", "a:1"))
        assert await read(stream) == []
        world.hub.changed(Change("r", "prompts"))
        assert await methods(stream) == ["prompts/list_changed"]


async def test_a_list_change_is_told_at_once_and_a_flapping_backend_once_a_second(world: World) -> None:
    with world.listen() as stream:
        await read(stream)
        for _ in range(10):
            world.hub.changed(Change("r", "tools"))
            world.advance(0.05)
        assert await methods(stream) == ["tools/list_changed"]
        world.hub.changed(Change("r", "prompts"))
        assert await methods(stream) == ["prompts/list_changed"]
        world.advance(0.5)
        assert await methods(stream) == ["tools/list_changed"]
        world.advance(5.0)
        assert await methods(stream) == []
        world.hub.changed(Change("r", "tools"))
        assert await methods(stream) == ["tools/list_changed"]


async def test_a_route_that_a_client_does_not_see_is_not_heard_of_but_a_reload_is(world: World) -> None:
    world.hidden = {"r"}
    with world.listen() as stream:
        await read(stream)
        world.hub.changed(Change("r", "tools"))
        assert await read(stream) == []
        world.hub.changed(Change("s", "tools"))
        world.advance(1.0)
        assert await methods(stream) == ["tools/list_changed"]
        world.advance(1.0)
        world.hub.catalog_changed()
        assert sorted(await methods(stream)) == [
            "prompts/list_changed",
            "resources/list_changed",
            "tools/list_changed",
        ]


async def test_a_part_of_a_watched_resource_is_told(world: World) -> None:
    with world.listen(Filter(uris=("a:1",))) as stream:
        await read(stream)
        world.hub.changed(Change("r", "resource", "a:1/part"))
        world.hub.changed(Change("r", "resource", "a:12"))
        assert [message["params"]["uri"] for message in await read(stream)] == ["a:1/part"]
        world.owners["elsewhere:1"] = "r"
        world.hub.changed(Change("r", "resource", "elsewhere:1"))
        assert [message["params"]["uri"] for message in await read(stream)] == ["elsewhere:1"]


async def test_backends_are_asked_for_the_union_of_all(world: World) -> None:
    with world.listen(Filter(uris=("a:1", "b:1")), 1):
        assert world.wanted == {"r": {"a:1"}, "s": {"b:1"}}
        assert world.hub.wanted("r") == {"a:1"}
        world.subscribe("session", "a:2")
        assert world.wanted["r"] == {"a:1", "a:2"}
    assert world.wanted == {"r": {"a:2"}, "s": frozenset()}
    world.hub.unsubscribe("session", "a:2")
    world.hub.unsubscribe("session", "a:2")
    world.hub.unsubscribe("another", "a:2")
    assert world.wanted == {"r": frozenset(), "s": frozenset()}


async def test_who_may_no_longer_read_a_resource_is_not_told_of_it(world: World) -> None:
    with world.listen(Filter(uris=("a:1",))) as stream:
        await read(stream)
        owner = world.owners.pop("a:1")
        world.hub.catalog_changed()
        assert world.wanted == {"r": frozenset()}
        world.hub.changed(Change("r", "resource", "a:1"))
        assert await read(stream) == []
        world.owners["a:1"] = owner
        world.hub.catalog_changed()
        world.hub.changed(Change("r", "resource", "a:1"))
        assert await methods(stream) == ["resources/updated"]


async def test_a_session_is_told_on_its_stream_without_ids(world: World) -> None:
    world.subscribe("one", "a:1")
    world.subscribe("one", "a:1")
    with world.follow("one") as one, world.follow("two") as two:
        await read(one), await read(two)
        world.hub.changed(Change("r", "resource", "a:1"))
        world.hub.changed(Change("r", "tools"))
        assert [message.get("params") for message in await read(one)] == [{"uri": "a:1"}, None]
        assert await methods(two) == ["tools/list_changed"]
        world.hub.unsubscribe("one", "a:1")
        world.hub.changed(Change("r", "resource", "a:1"))
        assert await read(one) == []


async def test_what_a_session_missed_without_a_stream_is_told_on_the_next(world: World) -> None:
    world.subscribe("one", "a:1")
    world.hub.changed(Change("r", "resource", "a:1"))
    world.hub.changed(Change("r", "resource", "a:1"))
    with world.follow("one") as stream:
        assert await methods(stream) == ["resources/updated"]
    with world.follow("one") as stream:
        assert await methods(stream) == []


async def test_a_session_has_one_stream_the_youngest(world: World) -> None:
    with world.follow("one") as former, world.follow("one") as stream:
        await read(stream)
        assert await former.next() == (b": open\n\n: the stream ends here\n\n", False)
        world.hub.changed(Change("r", "tools"))
        assert await methods(stream) == ["tools/list_changed"]
    assert world.counts == [1, 2, 1, 0]


async def test_a_session_ends_with_its_time_or_when_it_is_ended(world: World) -> None:
    world.subscribe("brief", "a:1", seconds=10.0)
    world.subscribe("long", "a:2", seconds=1000.0)
    world.advance(60.0)
    assert world.wanted["r"] == {"a:2"}
    with world.follow("long", seconds=1000.0) as stream:
        world.hub.end_session("long")
        assert world.wanted["r"] == frozenset()
        _, more = await stream.next()
        assert not more


async def test_nobody_subscribes_to_what_is_not_there_or_to_too_much(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.subscribe("one", "nobody:1")
    assert caught.value.code == -32602
    monkeypatch.setattr(subscriptions, "MAX_URIS", 1)
    world.subscribe("one", "a:1")
    with pytest.raises(InvalidRequest):
        world.subscribe("one", "a:2")
    monkeypatch.setattr(subscriptions, "MAX_SESSIONS", 1)
    with pytest.raises(Overloaded):
        world.subscribe("two", "a:1")
    world.now += 1000.0
    world.subscribe("two", "a:1")  # an expired session makes room


async def test_streams_are_bounded_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_STREAMS", 2)
    with ExitStack() as open_streams:
        open_streams.enter_context(world.listen())
        open_streams.enter_context(world.follow("one"))
        assert len(world.hub) == 2
        with pytest.raises(Overloaded):
            open_streams.enter_context(world.listen(Filter(uris=("a:1",))))
        assert world.wanted == {}
    assert world.counts == [1, 2, 1, 0]


async def test_the_gateway_ends_a_modern_stream_with_a_result_and_opens_no_more(world: World) -> None:
    with world.listen(request_id=5) as stream, world.follow("one") as legacy:
        await read(stream)
        world.hub.changed(Change("r", "tools"))
        world.hub.close()
        changed, result = await read(stream)
        assert changed["method"] == "notifications/tools/list_changed"
        assert result == {"jsonrpc": "2.0", "id": 5, "result": {"resultType": "complete", "_meta": {ID: 5}}}
        body, more = await legacy.next()
        assert not more
        assert body.endswith(b": the stream ends here\n\n")
        with pytest.raises(Overloaded), world.listen():
            pass
        world.hub.changed(Change("r", "tools"))
        assert not any(timer.live for timer in world.timers)
