import asyncio
import logging

import pytest

from gateway.relay import RelayLost
from gateway.stores.relay import MemoryRelay


async def echo(payload: bytes) -> bytes:
    return payload


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_an_address_is_short_plain_and_another_each_time() -> None:
    addresses = {MemoryRelay().here for _ in range(50)}
    assert len(addresses) == 50
    assert all(address.isascii() and address.isalnum() and 16 <= len(address) <= 32 for address in addresses)


async def test_a_question_to_itself_is_answered_by_the_handler_of_its_topic() -> None:
    relay = MemoryRelay()
    relay.serve("echo", echo)
    assert await relay.ask(relay.here, "echo", b"x", 1.0) == b"x"


@pytest.mark.parametrize(("there", "topic"), [("elsewhere", "echo"), (None, "unserved")])
async def test_a_question_that_nobody_can_answer_is_lost_and_was_not_delivered(there: str | None, topic: str) -> None:
    relay = MemoryRelay()
    relay.serve("echo", echo)
    with pytest.raises(RelayLost) as lost:
        await relay.ask(there or relay.here, topic, b"", 1.0)
    assert not lost.value.delivered


async def test_a_handler_that_takes_too_long_is_cancelled_and_its_question_lost() -> None:
    relay, ended = MemoryRelay(), asyncio.Event()

    async def hang(payload: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return payload

    relay.serve("hang", hang)
    with pytest.raises(RelayLost) as lost:
        await relay.ask(relay.here, "hang", b"", 0.01)
    assert lost.value.delivered
    await ended.wait()
    await settle()
    assert relay.running == 0


async def test_a_handler_ends_with_the_task_that_asked() -> None:
    relay, began, ended = MemoryRelay(), asyncio.Event(), asyncio.Event()

    async def hang(payload: bytes) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return payload

    relay.serve("hang", hang)
    asker = asyncio.create_task(relay.ask(relay.here, "hang", b"", 60.0))
    await began.wait()
    asker.cancel()
    await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await asker


async def test_a_handlers_failure_is_logged_here_and_a_lost_answer_there(caplog: pytest.LogCaptureFixture) -> None:
    relay = MemoryRelay()

    async def fail(payload: bytes) -> bytes:
        raise LookupError("inside")

    relay.serve("fail", fail)
    with pytest.raises(RelayLost) as lost, caplog.at_level(logging.ERROR):
        await relay.ask(relay.here, "fail", b"", 1.0)
    assert "inside" not in str(lost.value)
    assert "inside" in caplog.text


async def test_what_is_told_or_published_reaches_the_handler_and_nobody_waits() -> None:
    relay, heard = MemoryRelay(), []

    async def hear(payload: bytes) -> bytes:
        heard.append(payload)
        return b"dropped"

    relay.serve("news", hear)
    relay.tell(relay.here, "news", b"1")
    relay.publish("news", b"2")
    relay.tell("elsewhere", "news", b"3")
    relay.publish("unserved", b"4")
    assert heard == []
    await settle()
    assert heard == [b"1", b"2"]


async def test_beyond_its_bound_no_handler_is_started() -> None:
    relay = MemoryRelay(most=1)

    async def hang(payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return payload

    relay.serve("hang", hang)
    relay.publish("hang", b"")
    with pytest.raises(RelayLost) as lost:
        await relay.ask(relay.here, "hang", b"", 1.0)
    assert not lost.value.delivered
    await relay.aclose()


async def test_closing_ends_what_runs_and_starts_no_more() -> None:
    relay = MemoryRelay()
    relay.serve("hang", lambda _payload: asyncio.Event().wait())  # type: ignore[arg-type,return-value]
    asker = asyncio.create_task(relay.ask(relay.here, "hang", b"", 60.0))
    await settle()
    assert relay.running == 1
    await relay.aclose()
    with pytest.raises(RelayLost):
        await asker
    with pytest.raises(RelayLost):
        await relay.ask(relay.here, "hang", b"", 60.0)
