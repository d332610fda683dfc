"""Who is told what. No sockets; time is ours."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, Overloaded, RateLimited
from gateway.http import subscriptions, watched
from gateway.http.filters import Filter
from gateway.http.streams import Stream
from gateway.http.subscriptions import Subscriptions
from gateway.models import ANONYMOUS, Change, Principal

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
    def listen(self, asked: Filter = LISTS, request_id: Any = 1, principal: Principal = ANONYMOUS) -> Iterator[Stream]:
        mine = self.hub.listen(request_id, asked, principal=principal, route_of=self.owners.get, sees=self.sees)
        with mine as stream:
            yield stream

    def subscribe(self, session: str, uri: str, seconds: float = 100.0, principal: Principal = ANONYMOUS) -> None:
        self.hub.subscribe(session, uri, principal=principal, route_of=self.owners.get, sees=self.sees, seconds=seconds)

    @contextmanager
    def follow(self, session: str, seconds: float = 100.0, principal: Principal = ANONYMOUS) -> Iterator[Stream]:
        with self.hub.follow(session, principal=principal, sees=self.sees, seconds=seconds) as stream:
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


ALICE, BOB = Principal("https://idp", "alice"), Principal("https://idp", "bob")


async def test_while_one_principal_has_its_share_of_the_streams_another_gets_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_STREAMS", 8)
    with ExitStack() as others, ExitStack() as mine:
        mine.enter_context(world.listen(principal=ALICE))
        mine.enter_context(world.follow("a", principal=ALICE))
        for opening in (world.listen(principal=ALICE), world.follow("a2", principal=ALICE)):
            with pytest.raises(RateLimited, match="You may have 2 streams here and have 2") as refused:
                mine.enter_context(opening)
            assert (refused.value.rule, refused.value.retry_after) == ("share.streams", 5.0)
        for _ in range(2):
            others.enter_context(world.listen(principal=BOB))
        mine.pop_all().close()
        with world.listen(principal=ALICE), world.listen(principal=ALICE):
            assert len(world.hub) == 4


async def test_a_share_is_refused_before_the_stream_is_opened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_STREAMS", 4)
    monkeypatch.setattr(subscriptions, "MAX_SESSIONS", 4)
    monkeypatch.setattr(watched, "MAX_WATCHED", 4)
    world.subscribe("a", "a:1", principal=ALICE)
    two = Filter(uris=("a:1", "b:1"))
    for asked, rule in ((two, "subscriptions"), (Filter(uris=("a:2",)), "subscriptions")):
        with pytest.raises(RateLimited) as refused:
            world.hub.listen(1, asked, principal=ALICE, route_of=world.owners.get, sees=world.sees)
        assert refused.value.rule == f"share.{rule}"
    with pytest.raises(RateLimited) as refused:
        world.hub.follow("a2", principal=ALICE, sees=world.sees)
    assert refused.value.rule == "share.sessions"
    with pytest.raises(RateLimited) as refused:
        world.subscribe("a", "a:2", principal=ALICE)
    assert refused.value.rule == "share.subscriptions"
    world.subscribe("b", "a:1", principal=BOB)
    with world.listen(principal=BOB), world.follow("a", principal=ALICE):
        assert len(world.hub) == 2


async def test_a_session_whose_subscription_is_refused_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "MAX_WATCHED", 0)
    with pytest.raises(Overloaded):
        world.subscribe("a", "a:1", principal=ALICE)
    assert len(world.hub._sessions_of) == 0


class Crowd:
    """Three principals that open and end streams and sessions in every way there is."""

    WHO = (ALICE, BOB, ANONYMOUS)

    def __init__(self) -> None:
        self.world = World()
        self.open: list[tuple[Principal, ExitStack]] = []

    def listen(self, number: int) -> None:
        self._enter(number, self.world.listen(principal=self.WHO[number % 3]))

    def watch(self, number: int) -> None:
        self._enter(number, self.world.listen(Filter(uris=("a:1", "b:1")), principal=self.WHO[number % 3]))

    def follow(self, number: int) -> None:
        self._enter(number, self.world.follow(f"s{number}", principal=self.WHO[number % 3]))

    def subscribe(self, number: int) -> None:
        self.world.subscribe(f"s{number}", "a:1", principal=self.WHO[number % 3])

    def unsubscribe(self, number: int) -> None:
        self.world.hub.unsubscribe(f"s{number}", "a:1")

    def leave(self, number: int) -> None:
        if self.open:
            self.open.pop(number % len(self.open))[1].close()

    def end(self, number: int) -> None:
        self.world.hub.end_session(f"s{number}")

    def age(self, _number: int) -> None:
        self.world.advance(61.0)

    def _enter(self, number: int, opening: AbstractContextManager[Stream]) -> None:
        stack = ExitStack()
        stack.enter_context(opening)
        self.open.append((self.WHO[number % 3], stack))


_STEPS = st.sampled_from(["listen", "watch", "follow", "subscribe", "unsubscribe", "leave", "end", "age"])


@given(st.lists(st.tuples(_STEPS, st.integers(0, 5)), max_size=40))
async def test_shares_are_counted_exactly_however_streams_and_sessions_end(steps: list[tuple[str, int]]) -> None:
    crowd = Crowd()
    hub = crowd.world.hub
    for step, number in steps:
        getattr(crowd, step)(number)
        for one in crowd.WHO:
            assert hub._streams_of.of(one) == sum(owner is one for owner, _ in crowd.open)
            assert hub._sessions_of.of(one) == sum(client.principal is one for client in hub._sessions.values())
    while crowd.open:
        crowd.leave(0)
    for number in range(6):
        hub.end_session(f"s{number}")
    assert (len(hub._streams_of), len(hub._sessions_of), len(hub._watched._shares)) == (0, 0, 0)


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
