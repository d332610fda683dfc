"""What every ``LimitStore`` promises, and that the script decides exactly as the arithmetic in the process does."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.models import Limit
from gateway.ports import LimitStore, Take, Verdict
from gateway.stores import redis_connection
from gateway.stores.limits_memory import MemoryLimits
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.limits_script import MOST, SCRIPT, told_of

from .valkey import until

REDIS_URL = os.environ.get("REDIS_URL", "")
SERVERS = ["valkey", "redis"] if REDIS_URL else ["valkey"]
HOUR = 3600.0

LEASE = 1.0

Key = Callable[[str], str]
Replica = Callable[..., Awaitable[RedisLimits]]


def a_limit(limit: int, window: float = HOUR, burst: int | None = None, name: str = "x", **more: Any) -> Limit:
    return Limit(name=name, per=("principal",), limit=limit, window=window, burst=burst or limit, **more)


def at_once(places: int, name: str = "at-once", *, enforce: bool = True) -> Limit:
    return Limit(name, ("principal",), places, 0.0, places, enforce=enforce, concurrent=True)


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest, valkey_url: str) -> str:
    return valkey_url if request.param == "valkey" else REDIS_URL


@pytest.fixture
def admin(server_url: str) -> Iterator["redis.Redis[bytes]"]:
    with redis.Redis.from_url(server_url) as client:
        yield client


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided does not depend on how busy the machine is; test_redis_outage.py has what is late."""
    monkeypatch.setattr(redis_connection, "_DEADLINE", 10.0)
    monkeypatch.setattr(redis_connection, "_CONNECT", 10.0)


@pytest.fixture
async def replica(server_url: str) -> AsyncIterator[Replica]:
    """Starts a replica, which is closed behind the test."""
    async with AsyncExitStack() as stack:

        async def started(**options: float) -> RedisLimits:
            store = await stack.enter_async_context(aclosing(RedisLimits(server_url, on_failure="closed", **options)))
            await store.start()
            assert store.up
            return store

        yield started


@pytest.fixture
async def shared(replica: Replica) -> RedisLimits:
    return await replica()


@pytest.fixture(params=["memory", *SERVERS])
async def store(request: pytest.FixtureRequest, valkey_url: str) -> AsyncIterator[LimitStore]:
    if request.param == "memory":
        yield MemoryLimits()
        return
    url = valkey_url if request.param == "valkey" else REDIS_URL
    async with aclosing(RedisLimits(url, on_failure="closed")) as limits:
        await limits.start()
        yield limits


@pytest.fixture
def key() -> Key:
    run = uuid4().hex
    return lambda name: f"{run}-{name}"


async def test_a_burst_passes_and_the_next_call_is_refused(store: LimitStore, key: Key) -> None:
    one = Take(a_limit(5), key("k"))
    verdicts = [await store.take([one]) for _ in range(6)]
    assert [verdict.refused for verdict in verdicts] == [None] * 5 + [one.limit]
    assert not any(verdict.degraded for verdict in verdicts)


async def test_remaining_counts_down_and_reset_grows(store: LimitStore, key: Key) -> None:
    one = Take(a_limit(3), key("k"))
    states = [(await store.take([one])).states[0] for _ in range(3)]
    assert [state.remaining for state in states] == [2, 1, 0]
    assert [round(state.reset, -1) for state in states] == [1200.0, 2400.0, 3600.0]


async def test_the_wait_of_a_refused_call_is_that_of_one_call_at_the_steady_rate(store: LimitStore, key: Key) -> None:
    one = Take(a_limit(30, 60.0, burst=1), key("k"))
    await store.take([one])
    assert 1.0 < (await store.take([one])).retry_after <= 2.0


async def test_a_refused_call_passes_after_its_wait_and_not_before(store: LimitStore, key: Key) -> None:
    one = Take(a_limit(20, 1.0, burst=1), key("k"))
    await store.take([one])
    since, verdict = time.monotonic(), await store.take([one])
    assert verdict.refused
    async with asyncio.timeout(10):
        while (await store.take([one])).refused:
            pass
    assert time.monotonic() - since >= verdict.retry_after - 0.001


async def test_what_one_limit_refuses_costs_the_others_nothing(store: LimitStore, key: Key) -> None:
    wide, tight = Take(a_limit(10, name="wide"), key("wide")), Take(a_limit(1, name="tight"), key("tight"))
    await store.take([wide, tight])
    for order in ([wide, tight], [tight, wide]) * 10:
        assert (await store.take(order)).refused is tight.limit
    assert (await store.take([wide])).states[0].remaining == 8


async def test_every_take_has_its_state_in_order_also_when_refused(store: LimitStore, key: Key) -> None:
    takes = [Take(a_limit(number, name=str(number)), key(str(number))) for number in (3, 1, 2)]
    assert [state.remaining for state in (await store.take(takes)).states] == [2, 0, 1]
    refused = await store.take(takes)
    assert [(state.limit.name, state.remaining) for state in refused.states] == [("3", 2), ("1", 0), ("2", 1)]


async def test_the_limit_that_waits_longest_is_named(store: LimitStore, key: Key) -> None:
    takes = [Take(a_limit(1, window, name=str(window)), key(str(window))) for window in (60.0, HOUR, 600.0)]
    await store.take(takes)
    verdict = await store.take(takes)
    assert verdict.refused is takes[1].limit
    assert HOUR - 60 < verdict.retry_after <= HOUR


async def test_a_limit_that_became_smaller_waits_no_longer_than_it_says_itself(store: LimitStore, key: Key) -> None:
    for _ in range(10):
        await store.take([Take(a_limit(10), key("k"))])
    verdict = await store.take([Take(a_limit(10, 100.0, burst=1), key("k"))])
    assert 5.0 < verdict.retry_after <= 10.0


async def test_no_takes_are_no_decision(store: LimitStore) -> None:
    verdict = await store.take([])
    assert (verdict.refused, verdict.states, verdict.degraded) == (None, (), False)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    calls=st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=30),
)
async def test_memory_and_redis_count_the_same(shared: RedisLimits, limits: list[int], calls: list[set[int]]) -> None:
    run, memory = uuid4().hex, MemoryLimits()
    takes = [Take(a_limit(number, name=str(at)), f"{run}-{at}") for at, number in enumerate(limits)]
    for chosen in calls:
        some = [takes[at] for at in sorted(chosen) if at < len(takes)]
        here, there = await memory.take(some), await shared.take(some)
        assert (here.refused is None) == (there.refused is None)
        assert [state.remaining for state in here.states] == [state.remaining for state in there.states]


WITH_GIVEN_TIME = b"""
local microseconds, seconds, server = table.remove(ARGV), table.remove(ARGV), redis
local given = { seconds, microseconds }
local redis = { call = function(name, ...)
  if name == 'TIME' then return given end
  if name == 'SET' then local key, value = ...; return server.call('SET', key, value) end
  return server.call(name, ...)
end }
"""
"""Before the script: another clock, and no expiry, which would follow the server's own."""


def scripted(client: "redis.Redis[bytes]", now: int, *groups: tuple[int, Sequence[Take]]) -> list[list[int]]:
    """What is decided on so many calls with these takes each, one group after the other."""
    keys = [take.key for _, takes in groups for take in takes]
    arguments = [told for calls, takes in groups for told in (calls, *told_of(takes))]
    replies: list[list[int]] = client.eval(
        WITH_GIVEN_TIME + SCRIPT, len(keys), *keys, *arguments, *divmod(now, 1_000_000)
    )
    return replies


some_limits = st.builds(
    a_limit,
    limit=st.integers(1, 900),
    window=st.sampled_from([0.25, 1.0, 7.0, 60.0, 86400.0]),
    burst=st.integers(4, 9),
    cost=st.integers(1, 4),
    enforce=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(some_limits, min_size=1, max_size=4),
    pauses=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 90_000_000), st.none()), min_size=1, max_size=15),
)
def test_the_script_decides_to_the_microsecond_as_the_process_does(
    admin: "redis.Redis[bytes]", limits: list[Limit], pauses: list[int | None]
) -> None:
    now, run = 1_795_000_000_123_457, uuid4().hex
    memory = MemoryLimits(lambda: now / 1_000_000)
    takes = [Take(limit, f"{run}-{at}") for at, limit in enumerate(limits)]
    wait = 0
    for pause in pauses:
        now += wait if pause is None else pause
        ((refused, wait, *ahead),) = scripted(admin, now, (1, takes))
        verdict = asyncio.run(_take(memory, takes))
        assert (round(verdict.retry_after * 1e6), [round(state.reset * 1e6) for state in verdict.states]) == (
            wait,
            [lead if lead >= 0 else -1 - lead for lead in ahead],
        )
        assert verdict.refused is (takes[refused - 1].limit if refused else None)
        assert verdict.watching == tuple(take.limit for take, lead in zip(takes, ahead, strict=True) if lead < 0)
    admin.delete(*(take.key for take in takes))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(some_limits, min_size=3, max_size=3),
    runs=st.lists(
        st.lists(
            st.tuples(st.integers(1, 5), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)),
            min_size=1,
            max_size=5,
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_calls_in_one_run_of_the_script_are_decided_as_if_they_came_one_after_the_other(
    admin: "redis.Redis[bytes]", limits: list[Limit], runs: list[list[tuple[int, list[int]]]]
) -> None:
    now, name = 1_795_000_000_123_457, uuid4().hex
    together = [Take(limit, f"{name}-t{at}") for at, limit in enumerate(limits)]
    alone = [Take(limit, f"{name}-a{at}") for at, limit in enumerate(limits)]
    for groups in runs:
        now += 40_000
        decided = scripted(admin, now, *((calls, [together[at] for at in which]) for calls, which in groups))
        assert decided == [
            scripted(admin, now, (1, [alone[at] for at in which]))[0] for calls, which in groups for _ in range(calls)
        ]
    assert admin.mget([take.key for take in together]) == admin.mget([take.key for take in alone])
    admin.delete(*(take.key for take in (*together, *alone)))


async def test_calls_of_several_tools_and_with_places_are_each_told_their_own(shared: RedisLimits, key: Key) -> None:
    two, many, place = Take(a_limit(2), key("two")), Take(a_limit(100), key("many")), Take(at_once(3), key("place"))
    calls = [(two, many), (many,), (place, many), (two, many), (place,), (two, many), (place,), (place, many)]
    plans = {takes: takes for takes in calls}  # the same tuple for the same caller and tool
    verdicts = await asyncio.gather(*(shared.take(plans[takes]) for takes in calls))
    assert [verdict.refused for verdict in verdicts] == [
        None, None, None, None, None, two.limit, None, place.limit,
    ]  # fmt: skip
    assert [[state.limit for state in verdict.states] for verdict in verdicts] == [
        [take.limit for take in takes] for takes in calls
    ]
    assert (await shared.take([many])).states[0].remaining == 100 - 4 - 1
    for verdict in verdicts:
        if verdict.release is not None:
            verdict.release()
    assert (await shared.take([place])).states[0].remaining == 2


async def test_a_call_that_leaves_before_it_was_asked_about_takes_nothing(shared: RedisLimits, key: Key) -> None:
    one, place = (Take(a_limit(5), key("k")),), (Take(at_once(5), key("place")),)
    stays, leaves, leaves_place = (asyncio.create_task(shared.take(takes)) for takes in (one, one, place))
    await asyncio.sleep(0)
    for leaving in (leaves, leaves_place):
        leaving.cancel()
    assert (await stays).states[0].remaining == 4
    assert (await shared.take(one)).states[0].remaining == 3
    assert (await shared.take(place)).states[0].remaining == 4


async def test_more_calls_than_one_run_decides_are_all_decided(shared: RedisLimits, key: Key) -> None:
    takes = (Take(a_limit(150), key("k")),)
    verdicts = await asyncio.gather(*(shared.take(takes) for _ in range(2 * MOST + 40)))
    assert sum(verdict.refused is None for verdict in verdicts) == 150


async def _take(store: MemoryLimits, takes: Sequence[Take]) -> Verdict:
    return await store.take(takes)


async def test_two_hundred_at_once_over_four_replicas_admit_exactly_the_burst(replica: Replica, key: Key) -> None:
    replicas = [await replica() for _ in range(4)]
    takes = [Take(a_limit(50, name="tight"), key("tight")), Take(a_limit(1000, name="wide"), key("wide"))]
    verdicts = await asyncio.gather(*(replicas[number % 4].take(takes) for number in range(200)))
    assert sum(verdict.refused is None for verdict in verdicts) == 50
    assert (await replicas[0].take(takes[1:])).states[0].remaining == 1000 - 50 - 1


async def test_calls_of_one_turn_of_the_loop_share_one_round_trip(
    shared: RedisLimits, admin: "redis.Redis[bytes]", key: Key
) -> None:
    await shared.take([Take(a_limit(1), key("warm"))])
    before = admin.info("stats")["total_reads_processed"]
    await asyncio.gather(*(shared.take([Take(a_limit(100), key("k"))]) for _ in range(100)))
    assert admin.info("stats")["total_reads_processed"] - before <= 2 + 1  # the batch, the second INFO, a heartbeat


async def test_every_key_expires_when_its_counter_is_whole_and_has_the_hash_tag(
    shared: RedisLimits, admin: "redis.Redis[bytes]", key: Key
) -> None:
    await shared.take([Take(a_limit(2, 60.0), key("a")), Take(a_limit(1, 10.0), key("b"))])
    names = sorted(admin.scan_iter(f"{{mcp-gateway}}:*{key('')}*"))
    assert len(names) == 2
    assert 29_000 < admin.pttl(names[0]) <= 30_000
    assert 9_000 < admin.pttl(names[1]) <= 10_000


async def test_a_caller_that_hangs_up_disturbs_no_other_in_its_batch(shared: RedisLimits, key: Key) -> None:
    calls = [asyncio.create_task(shared.take([Take(a_limit(100), key(str(at)))])) for at in range(20)]
    asyncio.get_running_loop().call_soon(lambda: [call.cancel() for call in calls[::2]])
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, Verdict] * 10
    assert [result.states[0].remaining for result in results[1::2] if isinstance(result, Verdict)] == [99] * 10
    assert shared.up


async def test_the_script_is_sent_again_after_the_server_forgot_it(
    shared: RedisLimits, admin: "redis.Redis[bytes]", key: Key
) -> None:
    one = Take(a_limit(100), key("k"))
    await shared.take([one])
    admin.script_flush()
    verdicts = await asyncio.gather(*(shared.take([one]) for _ in range(10)))
    assert sorted(verdict.states[0].remaining for verdict in verdicts) == list(range(89, 99))
    assert not any(verdict.degraded for verdict in verdicts)


async def test_another_value_under_a_counters_name_does_not_stop_the_limit(
    shared: RedisLimits, admin: "redis.Redis[bytes]", key: Key
) -> None:
    admin.set(f"{{mcp-gateway}}:limit:{key('k')}", "nonsense")
    assert (await shared.take([Take(a_limit(5), key("k"))])).states[0].remaining == 4


# What a call costs, and limits that only watch


async def test_a_call_takes_what_it_costs_and_waits_for_all_of_it(store: LimitStore, key: Key) -> None:
    dear, cheap = Take(a_limit(10, 100.0, cost=4), key("k")), Take(a_limit(10, 100.0), key("k"))
    verdicts = [await store.take([dear]) for _ in range(3)]
    assert [(verdict.refused is None, verdict.states[0].remaining) for verdict in verdicts] == [
        (True, 6),
        (True, 2),
        (False, 2),
    ]
    assert 19.0 < verdicts[-1].retry_after <= 20.0
    assert [(await store.take([cheap])).refused for _ in range(3)] == [None, None, cheap.limit]


async def test_a_limit_that_only_watches_refuses_nobody_and_costs_nobody_anything(store: LimitStore, key: Key) -> None:
    trial = Take(a_limit(2, name="trial", enforce=False), key("trial"))
    real = Take(a_limit(4, name="real"), key("real"))
    verdicts = [await store.take([trial, real]) for _ in range(5)]
    assert [verdict.refused for verdict in verdicts] == [None] * 4 + [real.limit]
    assert [verdict.watching for verdict in verdicts] == [(), ()] + [(trial.limit,)] * 3
    assert [verdict.states[0].remaining for verdict in verdicts] == [1, 0, 0, 0, 0]


# Calls at the same time


async def test_a_place_is_taken_until_it_is_given_back(store: LimitStore, key: Key) -> None:
    two = Take(at_once(2), key("k"))
    first, second, third = [await store.take([two]) for _ in range(3)]
    assert [(it.refused, it.states[0].remaining) for it in (first, second, third)] == [
        (None, 1),
        (None, 0),
        (two.limit, 0),
    ]
    assert (third.retry_after, third.release) == (1.0, None)
    assert first.release is not None
    first.release()
    assert (await store.take([two])).refused is None
    assert (await store.take([two])).refused is two.limit


async def test_what_a_rate_refuses_takes_no_place_and_what_has_no_place_costs_no_rate(
    store: LimitStore, key: Key
) -> None:
    places, rate = Take(at_once(1), key("places")), Take(a_limit(2, name="rate"), key("rate"))
    held = await store.take([places, rate])
    assert (await store.take([places, rate])).refused is places.limit
    assert held.release is not None
    held.release()
    assert (await store.take([rate])).states[0].remaining == 0
    assert (await store.take([places, rate])).refused is rate.limit
    assert (await store.take([places])).refused is None


async def test_places_that_are_only_watched_refuse_nobody(store: LimitStore, key: Key) -> None:
    trial = Take(at_once(1, enforce=False), key("k"))
    verdicts = [await store.take([trial]) for _ in range(3)]
    assert [verdict.watching for verdict in verdicts] == [(), (trial.limit,), (trial.limit,)]
    for verdict in verdicts:
        if verdict.release is not None:
            verdict.release()
    assert (await store.take([trial])).watching == ()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    steps=st.lists(st.one_of(st.sampled_from(["take", "take"]), st.integers(0, 9)), min_size=1, max_size=30),
)
async def test_places_are_as_many_as_calls_run_in_memory_and_redis(
    shared: RedisLimits, places: list[int], steps: list[str | int]
) -> None:
    """A step takes, or gives back the n-th of what runs. The model is the list of what runs."""
    run, memory = uuid4().hex, MemoryLimits()
    takes = [Take(at_once(number, name=str(at)), f"{run}-{at}") for at, number in enumerate(places)]
    running: list[list[Verdict]] = []
    for step in steps:
        if isinstance(step, int):
            for verdict in running.pop(step) if step < len(running) else ():
                assert verdict.release is not None
                verdict.release()
            continue
        verdicts = [await memory.take(takes), await shared.take(takes)]
        admitted = len(running) < min(places)
        assert [verdict.refused is None for verdict in verdicts] == [admitted, admitted]
        assert verdicts[0].states == verdicts[1].states
        if admitted:
            running.append(verdicts)


async def test_replicas_share_places_and_two_hundred_at_once_get_exactly_those(replica: Replica, key: Key) -> None:
    replicas = [await replica() for _ in range(4)]
    take = Take(at_once(37), key("k"))
    verdicts = await asyncio.gather(*(replicas[number % 4].take([take]) for number in range(200)))
    held = [verdict.release for verdict in verdicts if verdict.release is not None]
    assert len(held) == 37
    for release in held[:5]:
        release()
    again = await asyncio.gather(*(replicas[number % 4].take([take]) for number in range(20)))
    assert sum(verdict.refused is None for verdict in again) == 5


async def test_a_caller_that_hangs_up_while_it_is_decided_leaves_no_place_taken(shared: RedisLimits, key: Key) -> None:
    one = Take(at_once(5), key("k"))
    calls = [asyncio.create_task(shared.take([one])) for _ in range(5)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert (await shared.take([one])).states[0].remaining == 4


async def test_the_places_of_a_process_that_died_are_free_when_its_leases_end_and_not_before(
    replica: Replica, key: Key
) -> None:
    dying, living = await replica(lease=LEASE), await replica(lease=LEASE)
    one = Take(at_once(2), key("k"))
    for holder in (dying, living):
        assert (await holder.take([one])).refused is None
    await dying.aclose()
    died = time.monotonic()
    async with asyncio.timeout(10):
        while (await living.take([one])).refused is not None:  # noqa: ASYNC110 - no event tells of another's lease
            await asyncio.sleep(0.02)
    assert time.monotonic() - died > LEASE / 2
    # What lives goes on holding its places, lease after lease.
    while time.monotonic() - died < 3 * LEASE:
        assert (await living.take([one])).refused is one.limit
        await asyncio.sleep(0.02)  # between looks: leases are renewed by the server's clock, which no test can turn


async def test_places_that_redis_forgot_are_there_again_with_the_next_renewal(
    replica: Replica, admin: "redis.Redis[bytes]", key: Key
) -> None:
    shared = await replica(lease=LEASE)
    one = Take(at_once(1), key("k"))
    held = await shared.take([one])
    name = f"{{mcp-gateway}}:limit:{one.key}"
    admin.delete(name)
    await until(lambda: bool(admin.exists(name)))
    assert (await shared.take([one])).refused is one.limit
    assert held.release is not None
    held.release()
    assert (await shared.take([one])).refused is None
