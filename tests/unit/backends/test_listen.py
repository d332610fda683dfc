"""The one stream on which a modern backend says what changed, against a backend made of events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.backends import link, listen
from gateway.backends.listen import Listener
from gateway.errors import METHOD_NOT_FOUND
from gateway.models import BackendReply, Change
from gateway.ports import Notify

ALL = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
}
LISTS = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


class Opened:
    def __init__(self, wanted: Mapping[str, Any], notify: Notify) -> None:
        self.wanted = wanted
        self.notify = notify
        self.end: asyncio.Future[BackendReply] = asyncio.get_running_loop().create_future()
        self.closed = False

    def say(self, kind: str, **params: Any) -> None:
        self.notify(f"notifications/{kind}", params)


class Backend:
    """``answer`` decides what becomes of a new stream: by default it is acknowledged."""

    def __init__(self) -> None:
        self.streams: list[Opened] = []
        self.changes: list[Change] = []
        self.gaps = 0
        self.most_open = 0
        self.answer: Callable[[Opened], None] = lambda stream: stream.say("subscriptions/acknowledged")

    @property
    def open(self) -> list[Opened]:
        return [stream for stream in self.streams if not stream.closed]

    async def __call__(self, wanted: Mapping[str, Any], notify: Notify, *, idle: float, longest: float) -> BackendReply:
        assert idle >= 300
        assert longest > listen.RENEW
        stream = Opened(wanted, notify)
        self.streams.append(stream)
        self.most_open = max(self.most_open, len(self.open))
        asyncio.get_running_loop().call_soon(self.answer, stream)
        try:
            return await stream.end
        finally:
            stream.closed = True

    def gap(self) -> None:
        self.gaps += 1


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "CALM", 0.001)


@asynccontextmanager
async def listening(backend: Backend, capabilities: Any = ALL) -> AsyncIterator[Listener]:
    listener = Listener("r", backend, on_change=backend.changes.append, on_gap=backend.gap, chance=lambda: 1.0)
    listener._backoff._first = listener._backoff._next = 0.001
    await listener.advertised(capabilities, 1.0)
    try:
        yield listener
    finally:
        await listener.aclose()
        await asyncio.sleep(0)
        assert backend.open == []


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is a value, not an event
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Everything has happened that can happen without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_it_listens_to_all_that_is_advertised_before_lists_are_asked_for() -> None:
    backend = Backend()
    async with listening(backend):
        assert [stream.wanted for stream in backend.open] == [LISTS]
        backend.open[0].say("tools/list_changed")
        backend.open[0].say("resources/list_changed")
        backend.open[0].say("something/else")
        assert backend.changes == [Change("r", "tools"), Change("r", "resources")]
        assert backend.gaps == 0


async def test_what_is_not_advertised_is_not_asked_for_nor_believed() -> None:
    backend = Backend()
    async with listening(
        backend, {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": False}}
    ) as one:
        one.watch(frozenset({"a:1"}))
        await settled()
        assert [stream.wanted for stream in backend.streams] == [{"toolsListChanged": True}]
        backend.open[0].say("prompts/list_changed")
        assert backend.changes == []


async def test_a_backend_that_tells_nothing_is_not_listened_to() -> None:
    backend = Backend()
    async with listening(backend, {"tools": {}}):
        assert backend.streams == []


async def test_a_stream_counts_only_once_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "ACKNOWLEDGED_WITHIN", 0.01)
    backend = Backend()
    backend.answer = lambda stream: stream.say("tools/list_changed")
    async with listening(backend):
        await until(lambda: len(backend.streams) >= 2)
        assert backend.streams[0].closed
        assert backend.changes == []


async def test_more_resources_open_a_larger_stream_before_the_smaller_is_closed() -> None:
    backend = Backend()
    async with listening(backend) as listener:
        listener.watch(frozenset({"a:1"}))
        await until(lambda: len(backend.streams) == 2 and len(backend.open) == 1)
        assert backend.most_open == 2
        assert backend.open[0].wanted == {**LISTS, "resourceSubscriptions": ["a:1"]}
        # What changed between the wish and the stream was told to nobody.
        assert backend.changes == [Change("r", "resource", "a:1")]
        assert backend.gaps == 0


async def test_fewer_resources_keep_the_stream_but_are_not_told() -> None:
    backend = Backend()
    async with listening(backend) as listener:
        listener.watch(frozenset({"a:1", "a:2"}))
        await until(lambda: len(backend.streams) == 2 and len(backend.open) == 1)
        listener.watch(frozenset({"a:1"}))
        backend.changes.clear()
        await settled()
        assert len(backend.streams) == 2
        for uri in ("a:2", "a:1", "a:1/part"):
            backend.open[0].say("resources/updated", uri=uri)
        assert [change.uri for change in backend.changes] == ["a:1", "a:1/part"]


async def test_wishes_that_grow_fast_make_few_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "CALM", 0.05)
    backend = Backend()
    async with listening(backend) as listener:
        for number in range(100):
            listener.watch(frozenset(f"a:{n}" for n in range(number + 1)))
            await asyncio.sleep(0)
        await until(lambda: len(backend.open[-1].wanted.get("resourceSubscriptions", ())) == 100)
        assert len(backend.streams) <= 4


async def test_a_lost_stream_is_opened_again_and_all_may_have_changed() -> None:
    backend = Backend()
    async with listening(backend) as listener:
        listener.watch(frozenset({"a:1"}))
        await until(lambda: len(backend.streams) == 2 and len(backend.open) == 1)
        backend.changes.clear()
        backend.open[0].end.set_exception(link.broken("r"))
        await until(lambda: len(backend.streams) == 3)
        await until(lambda: backend.changes)
        assert backend.changes == [Change("r", "resource", "a:1")]
        assert backend.gaps >= 1


async def test_a_stream_that_the_backend_ends_is_opened_again() -> None:
    backend = Backend()
    async with listening(backend):
        backend.open[0].end.set_result(BackendReply({"resultType": "complete"}, None, 1.0))
        await until(lambda: len(backend.streams) == 2)


async def test_a_backend_that_is_down_is_tried_less_and_less() -> None:
    backend = Backend()
    backend.answer = lambda stream: stream.end.set_exception(link.refused("r"))
    async with listening(backend) as listener:
        await until(lambda: len(backend.streams) >= 3)
        assert listener._backoff._next >= 0.008
        backend.answer = lambda stream: stream.say("subscriptions/acknowledged")
        await until(lambda: backend.open)
        await until(lambda: backend.gaps)


async def test_without_the_method_it_is_left_to_polling_until_the_capabilities_change() -> None:
    backend = Backend()
    reply = BackendReply(None, {"code": METHOD_NOT_FOUND, "message": ""}, 0.1)
    backend.answer = lambda stream: stream.end.set_result(reply)
    async with listening(backend) as listener:
        await until(lambda: backend.streams)
        listener.watch(frozenset({"a:1"}))
        await settled()
        assert len(backend.streams) == 1
        backend.answer = lambda stream: stream.say("subscriptions/acknowledged")
        await listener.advertised({"tools": {"listChanged": True}}, 1.0)
        await until(lambda: backend.open)


async def test_a_stream_is_renewed_before_it_is_old_and_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "RENEW", 0.05)
    backend = Backend()
    async with listening(backend):
        await until(lambda: len(backend.streams) >= 3)
        assert backend.most_open == 2
        assert backend.gaps == 0
        assert backend.changes == []


async def test_a_backend_that_does_not_answer_holds_the_lists_up_only_briefly() -> None:
    backend = Backend()
    backend.answer = lambda stream: None
    listener = Listener("r", backend, on_change=backend.changes.append, on_gap=backend.gap)
    await listener.advertised(ALL, 0.01)
    backend.streams[0].say("subscriptions/acknowledged")
    await until(lambda: backend.gaps)  # what happened meanwhile is not in the lists
    await listener.aclose()


async def test_with_nothing_left_to_hear_the_stream_is_closed() -> None:
    backend = Backend()
    async with listening(backend) as listener:
        await listener.advertised({"tools": {}}, 1.0)
        await until(lambda: not backend.open)
        await settled()
        assert len(backend.streams) == 1
