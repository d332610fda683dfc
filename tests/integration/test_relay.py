"""What every ``Relay`` promises, and how processes on one Redis find, answer, cancel and lose each other."""

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from gateway.relay import Relay, RelayLost
from gateway.stores.redis_connection import TAG
from gateway.stores.relay import MemoryRelay
from gateway.stores.relay_frames import Head
from gateway.stores.relay_redis import RedisRelay

from .valkey import Valkey, until

KEYS = [b"k" * 32]
Start = Callable[..., Awaitable[RedisRelay]]

PEER = """
import asyncio, sys
from gateway.stores.relay_redis import RedisRelay

async def echo(payload):
    return payload

async def hang(payload):
    print("began", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("ended", flush=True)

async def main():
    relay = RedisRelay(sys.argv[1], [b"k" * 32])
    relay.serve("echo", echo)
    relay.serve("hang", hang)
    await relay.start()
    print(relay.here, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        there, topic = line.split()
        await relay.ask(there, topic, b"from the peer", 60.0)

asyncio.run(main())
"""


class Hanging:
    """A handler that never answers and says when it began and ended."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, payload: bytes) -> bytes:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return payload


async def echo(payload: bytes) -> bytes:
    return payload


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def start(valkey_url: str) -> AsyncIterator[Start]:
    started: list[RedisRelay] = []

    async def start_relay(url: str = valkey_url, keys: list[bytes] = KEYS, **options: int) -> RedisRelay:
        relay = RedisRelay(url, keys, **options)  # type: ignore[arg-type]
        relay.serve("echo", echo)
        started.append(relay)
        await relay.start()
        return relay

    yield start_relay
    for relay in started:
        await relay.aclose()


@pytest.fixture
async def peer() -> AsyncIterator[Callable[[str], Awaitable[tuple[Process, str]]]]:
    """Starts a relay in a process of its own; gives the process and its address."""
    started: list[Process] = []

    async def start_peer(url: str) -> tuple[Process, str]:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, url, stdin=PIPE, stdout=PIPE)
        started.append(process)
        assert process.stdout is not None
        return process, (await process.stdout.readline()).decode().strip()

    yield start_peer
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


Peer = Callable[[str], Awaitable[tuple[Process, str]]]


async def word_of(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(10.0):
        return (await process.stdout.readline()).decode().strip()


# The contract of both


@pytest.fixture(params=["memory", "redis"])
async def relay(request: pytest.FixtureRequest, start: Start) -> AsyncIterator[Relay]:
    if request.param == "redis":
        yield await start()
        return
    memory = MemoryRelay()
    memory.serve("echo", echo)
    yield memory
    await memory.aclose()


async def test_a_process_can_ask_itself(relay: Relay) -> None:
    assert await relay.ask(relay.here, "echo", b"\x00\xff", 5.0) == b"\x00\xff"


async def test_at_an_address_of_nobody_a_question_is_lost_at_once(relay: Relay) -> None:
    since = time.monotonic()
    with pytest.raises(RelayLost) as lost:
        await relay.ask("0123456789abcdef0123", "echo", b"", 60.0)
    assert not lost.value.delivered
    assert time.monotonic() - since < 1.0


async def test_what_is_published_reaches_the_publisher_too(relay: Relay) -> None:
    heard: list[bytes] = []

    async def hear(payload: bytes) -> bytes:
        heard.append(payload)
        return b""

    relay.serve("news", hear)
    relay.publish("news", b"1")
    relay.tell(relay.here, "news", b"2")
    await until(lambda: len(heard) >= 2)
    assert await relay.ask(relay.here, "echo", b"", 5.0) == b""
    assert heard == [b"1", b"2"]


async def test_what_is_published_to_others_does_not_reach_the_publisher(relay: Relay) -> None:
    heard: list[bytes] = []

    async def hear(payload: bytes) -> bytes:
        heard.append(payload)
        return b""

    relay.serve("news", hear)
    relay.publish("news", b"1", here=False)
    relay.publish("news", b"2")
    await until(lambda: len(heard) >= 1)
    assert await relay.ask(relay.here, "echo", b"", 5.0) == b""
    assert heard == [b"2"]


async def test_a_question_that_is_given_up_ends_its_handler(relay: Relay) -> None:
    hanging = Hanging()
    relay.serve("hang", hanging)
    with pytest.raises(RelayLost) as lost:
        await relay.ask(relay.here, "hang", b"", 0.05)
    assert lost.value.delivered
    await asyncio.wait_for(hanging.ended.wait(), 5.0)


# Two processes' worth


async def test_an_answer_comes_from_the_process_that_was_asked(start: Start) -> None:
    here, there, third = [await start() for _ in range(3)]
    there.serve("who", lambda _payload: echo(b"there"))
    third.serve("who", lambda _payload: echo(b"third"))
    assert await here.ask(there.here, "who", b"", 5.0) == b"there"
    assert await here.ask(third.here, "who", b"", 5.0) == b"third"


async def test_many_questions_at_once_get_each_its_own_answer(start: Start) -> None:
    here, there = await start(), await start()
    payloads = [b"%d" % number for number in range(500)]
    assert await asyncio.gather(*(here.ask(there.here, "echo", each, 10.0) for each in payloads)) == payloads
    assert (here.waiting, there.running) == (0, 0)


async def test_what_is_told_arrives_once_and_in_order(start: Start) -> None:
    here, there = await start(), await start()
    heard: list[int] = []

    async def hear(payload: bytes) -> bytes:
        heard.append(int(payload))
        return b""

    there.serve("news", hear)
    for number in range(300):
        here.tell(there.here, "news", b"%d" % number)
    await until(lambda: len(heard) >= 300)
    assert heard == list(range(300))


async def test_what_is_published_reaches_every_process_once(start: Start) -> None:
    relays = [await start() for _ in range(3)]
    heard: list[str] = []
    for relay in relays:

        async def hear(payload: bytes, name: str = relay.here) -> bytes:
            heard.append(name)
            return b""

        relay.serve("news", hear)
    relays[0].publish("news", b"x")
    await until(lambda: len(heard) >= 3)
    assert await relays[0].ask(relays[1].here, "echo", b"", 5.0) == b""
    assert sorted(heard) == sorted(relay.here for relay in relays)


async def test_a_response_of_the_largest_size_comes_through(start: Start) -> None:
    here, there = await start(), await start()
    large = os.urandom(2**20) * 16
    assert await here.ask(there.here, "echo", large, 20.0) == large


async def test_a_payload_over_the_bound_is_lost_on_either_way(start: Start) -> None:
    here, there = await start(max_bytes=1000), await start(max_bytes=1000)
    there.serve("large", lambda _payload: echo(b"x" * 1001))
    with pytest.raises(RelayLost) as lost:
        await here.ask(there.here, "echo", b"x" * 1001, 5.0)
    assert not lost.value.delivered
    with pytest.raises(RelayLost, match="did not answer") as lost:
        await here.ask(there.here, "large", b"x" * 1000, 5.0)
    assert lost.value.delivered
    assert await here.ask(there.here, "echo", b"x" * 1000, 5.0) == b"x" * 1000


async def test_a_handlers_failure_or_absence_is_told_at_once_and_without_its_words(start: Start) -> None:
    here, there = await start(), await start()

    async def fail(payload: bytes) -> bytes:
        raise LookupError("inside")

    there.serve("fail", fail)
    for topic in ("fail", "unserved"):
        with pytest.raises(RelayLost) as lost:
            await asyncio.wait_for(here.ask(there.here, topic, b"", 60.0), 5.0)
        assert "inside" not in str(lost.value)


async def test_more_than_the_bound_of_handlers_is_refused_not_queued(start: Start) -> None:
    here, there = await start(), await start(most=2)
    there.serve("hang", Hanging())
    waiting = [asyncio.create_task(here.ask(there.here, "hang", b"", 60.0)) for _ in range(2)]
    await until(lambda: there.running == 2)
    with pytest.raises(RelayLost):
        await asyncio.wait_for(here.ask(there.here, "hang", b"", 60.0), 5.0)
    for task in waiting:
        task.cancel()
    await until(lambda: there.running == 0)


async def test_when_the_asker_is_cancelled_the_handler_is_cancelled(start: Start) -> None:
    here, there = await start(), await start()
    hanging = Hanging()
    there.serve("hang", hanging)
    asker = asyncio.create_task(here.ask(there.here, "hang", b"", 60.0))
    await asyncio.wait_for(hanging.began.wait(), 5.0)
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    await asyncio.wait_for(hanging.ended.wait(), 5.0)
    await until(lambda: there.running == 0)
    assert here.waiting == 0


async def test_when_time_is_up_the_handler_is_cancelled(start: Start) -> None:
    here, there = await start(), await start()
    hanging = Hanging()
    there.serve("hang", hanging)
    with pytest.raises(RelayLost, match="in time"):
        await here.ask(there.here, "hang", b"", 0.2)
    await asyncio.wait_for(hanging.ended.wait(), 5.0)


async def test_a_handler_does_not_outlive_its_question_although_nobody_cancels_it(start: Start) -> None:
    here, there = await start(), await start()
    hanging = Hanging()
    there.serve("hang", hanging)
    here._post(Head("ask", here.here, there.here, "hang", "1", 0.2), b"")
    await asyncio.wait_for(hanging.ended.wait(), 5.0)


async def test_a_process_that_stops_tells_those_who_wait_for_it(start: Start) -> None:
    here, there = await start(), await start()
    hanging = Hanging()
    there.serve("hang", hanging)
    asker = asyncio.create_task(here.ask(there.here, "hang", b"", 60.0))
    await asyncio.wait_for(hanging.began.wait(), 5.0)
    await there.aclose()
    with pytest.raises(RelayLost):
        await asyncio.wait_for(asker, 1.0)


# Trust


async def test_another_key_ring_is_another_gateway(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    here, there = await start(), await start(keys=[b"x" * 32])
    with pytest.raises(RelayLost), caplog.at_level(logging.WARNING):
        await here.ask(there.here, "echo", b"", 0.5)
    assert "keys or clocks" in caplog.text


async def test_keys_can_be_rotated_one_process_after_the_other(start: Start) -> None:
    here, there = await start(keys=[b"n" * 32, *KEYS]), await start(keys=[*KEYS, b"n" * 32])
    assert await here.ask(there.here, "echo", b"x", 5.0) == b"x"
    assert await there.ask(here.here, "echo", b"x", 5.0) == b"x"


async def test_whoever_can_write_to_redis_can_neither_read_nor_forge_nor_repeat(start: Start, valkey_url: str) -> None:
    here, there = await start(), await start()
    heard: list[bytes] = []

    async def hear(payload: bytes) -> bytes:
        heard.append(payload)
        return b""

    there.serve("news", hear)
    channel = TAG + b"relay:" + there.here.encode()
    with redis.Redis.from_url(valkey_url) as intruder, intruder.pubsub(ignore_subscribe_messages=True) as tap:
        tap.subscribe(channel)
        tap.get_message(timeout=5.0)
        here.tell(there.here, "news", b"a secret payload")
        await until(lambda: len(heard) == 1)
        seen = tap.get_message(timeout=5.0)
        assert seen is not None
        assert b"secret" not in seen["data"]
        for frame in (seen["data"], b"", b"\xff" * 100, b'["tell","a","b"]'):
            assert intruder.publish(channel, frame) == 2
    assert await here.ask(there.here, "echo", b"", 5.0) == b""
    assert heard == [b"a secret payload"]


# Processes that die, Redis that goes


async def test_a_process_of_its_own_answers(start: Start, peer: Peer, valkey_url: str) -> None:
    here, (_, there) = await start(), await peer(valkey_url)
    assert await here.ask(there, "echo", b"x", 5.0) == b"x"


async def test_a_killed_process_loses_its_questions_within_a_second_or_so(
    start: Start, peer: Peer, valkey_url: str
) -> None:
    here, (process, there) = await start(), await peer(valkey_url)
    asker = asyncio.create_task(here.ask(there, "hang", b"", 60.0))
    assert await word_of(process) == "began"
    process.kill()
    since = time.monotonic()
    with pytest.raises(RelayLost, match="gone") as lost:
        await asyncio.wait_for(asker, 10.0)
    assert lost.value.delivered
    assert time.monotonic() - since < 1.6
    with pytest.raises(RelayLost, match="nobody"):
        await here.ask(there, "echo", b"", 60.0)


async def test_a_process_that_stands_still_is_lost_although_it_is_connected(
    start: Start, peer: Peer, valkey_url: str
) -> None:
    here, (process, there) = await start(), await peer(valkey_url)
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RelayLost, match="gone"):
            await asyncio.wait_for(here.ask(there, "echo", b"", 60.0), 10.0)
    finally:
        process.send_signal(signal.SIGCONT)


async def test_a_handler_ends_when_the_process_that_asked_is_killed(start: Start, peer: Peer, valkey_url: str) -> None:
    here, (process, _) = await start(), await peer(valkey_url)
    hanging = Hanging()
    here.serve("hang", hanging)
    assert process.stdin is not None
    process.stdin.write(f"{here.here} hang\n".encode())
    await asyncio.wait_for(hanging.began.wait(), 5.0)
    process.kill()
    await asyncio.wait_for(hanging.ended.wait(), 10.0)


async def test_it_heals_after_redis_was_restarted(start: Start, valkey: Valkey) -> None:
    here, there = await start(valkey.url), await start(valkey.url)
    valkey.kill()
    await until(lambda: not here.up and not there.up)
    with pytest.raises(RelayLost) as lost:
        await here.ask(there.here, "echo", b"", 60.0)
    assert not lost.value.delivered
    valkey.start()
    await until(lambda: here.up and there.up)
    assert await here.ask(there.here, "echo", b"x", 5.0) == b"x"


async def test_a_short_outage_loses_neither_a_running_question_nor_its_answer(start: Start, valkey: Valkey) -> None:
    here, there = await start(valkey.url), await start(valkey.url)
    began, go = asyncio.Event(), asyncio.Event()

    async def wait(payload: bytes) -> bytes:
        began.set()
        await go.wait()
        return payload

    there.serve("wait", wait)
    asker = asyncio.create_task(here.ask(there.here, "wait", b"x", 30.0))
    await asyncio.wait_for(began.wait(), 5.0)
    valkey.kill()
    await until(lambda: not here.up)
    go.set()
    await until(lambda: there.running == 0)
    valkey.start()
    assert await asker == b"x"


async def test_a_long_outage_ends_what_waits(start: Start, valkey: Valkey) -> None:
    here, there = await start(valkey.url), await start(valkey.url)
    hanging = Hanging()
    there.serve("hang", hanging)
    asker = asyncio.create_task(here.ask(there.here, "hang", b"", 60.0))
    await asyncio.wait_for(hanging.began.wait(), 5.0)
    valkey.kill()
    with pytest.raises(RelayLost, match="Redis is away"):
        await asyncio.wait_for(asker, 10.0)
    await asyncio.wait_for(hanging.ended.wait(), 10.0)


async def test_a_gateway_starts_without_redis_and_joins_when_it_comes(start: Start, valkey: Valkey) -> None:
    valkey.kill()
    here, there = await start(valkey.url), await start(valkey.url)
    here.tell(there.here, "echo", b"dropped")
    here.publish("echo", b"dropped")
    valkey.start()
    await until(lambda: here.up and there.up)
    assert await here.ask(there.here, "echo", b"x", 5.0) == b"x"


async def test_a_redis_that_forbids_channels_is_told_of_once_and_nobody_waits(
    start: Start, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(valkey.url) as admin:
        admin.acl_setuser("limited", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset_channels=True)
    with caplog.at_level(logging.WARNING):
        relay = await start(valkey.url.replace("redis://", "redis://limited:x@"))
        with pytest.raises(RelayLost):
            await relay.ask("somebody", "echo", b"", 60.0)
    assert not relay.up
    assert caplog.text.count("do not arrive") == 1


async def test_work_that_fails_unexpectedly_is_started_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = await start(), await start()

    def fail(message: object) -> None:
        raise LookupError("unexpected")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(there, "_heard", fail)
        here.tell(there.here, "echo", b"")
        await until(lambda: "unexpected" in caplog.text)
    await until(lambda: there.up)
    assert await here.ask(there.here, "echo", b"x", 5.0) == b"x"


async def test_closing_ends_also_where_a_cancellation_gets_lost(start: Start) -> None:
    relay = await start()
    lost: list[str] = []

    async def loses_one() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append("one")

    relay._run(loses_one)
    await asyncio.sleep(0)
    await asyncio.wait_for(relay.aclose(), 5.0)
    assert lost == ["one"]
