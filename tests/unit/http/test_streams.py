"""One stream towards a client: its order, its bounds, its end."""

import asyncio
from typing import Any

import pytest

from gateway.http import streams
from gateway.http.streams import MAX_WAITING, Stream, serve


class Client:
    """Takes what is sent; with ``stuck`` set it takes nothing more."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.stuck = False

    async def __call__(self, message: Any) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_what_waits_is_sent_in_order_and_once() -> None:
    stream = Stream(b"first ", b"last")
    for body in (b"a ", b"b ", b"a "):
        stream.put(body)
    assert await stream.next() == (b"first a b ", True)
    stream.put(b"a ")
    assert await stream.next() == (b"a ", True)


async def test_the_end_comes_after_what_waits_and_nothing_after_the_end() -> None:
    stream = Stream(b"", b"last")
    stream.put(b"a ")
    stream.end()
    stream.put(b"b ")
    stream.end()
    assert await stream.next() == (b"a last", False)


async def test_a_reader_is_woken_by_a_message_and_by_the_end() -> None:
    stream = Stream(b"first", b"last")
    await stream.next()
    reader = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    stream.put(b"a")
    assert await reader == (b"a", True)
    reader = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    stream.end()
    assert await reader == (b"last", False)


async def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.01)
    stream = Stream(b"first", b"last")
    await stream.next()
    assert await stream.next() == (b": keep-alive\n\n", True)


async def test_a_stream_ends_by_itself_when_its_time_is_over() -> None:
    stream = Stream(b"first", b"last", seconds=0.02)
    assert await stream.next() == (b"first", True)
    assert await stream.next() == (b"last", False)


async def test_a_client_that_falls_too_far_behind_gets_what_waits_and_the_end() -> None:
    stream = Stream(b"first ", b"last")
    for number in range(MAX_WAITING + 50):
        stream.put(b"%d " % number)
    body, more = await stream.next()
    assert not more
    assert body.startswith(b"first 0 1 2 ")
    assert body.endswith(b"last")
    assert len(body.split()) <= MAX_WAITING + 2


async def test_it_is_written_as_server_sent_events_and_closed() -> None:
    client, stream = Client(), Stream(b"first", b"last")
    stream.end()
    await serve(stream, client, [(b"x-request-id", b"1")])
    start, body = client.sent
    assert start["status"] == 200
    assert dict(start["headers"]) == {
        b"x-request-id": b"1",
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-store",
        b"x-accel-buffering": b"no",
    }
    assert body == {"type": "http.response.body", "body": b"firstlast", "more_body": False}


async def test_a_client_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALLED_SECONDS", 0.01)
    client, stream = Client(), Stream(b"first", b"last")
    client.stuck = True
    with pytest.raises(asyncio.CancelledError):
        await serve(stream, client, [])
    assert client.sent == []
