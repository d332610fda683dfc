"""One principal's calls under way are bounded, wait for a moment, and are nobody else's matter."""

import asyncio
from dataclasses import replace

import pytest

from gateway.backends.bulkhead import Bulkhead
from gateway.errors import RateLimited
from gateway.models import ANONYMOUS, Call, Principal
from gateway.policy.principal_concurrency import PrincipalConcurrency

from ..fakes import FakeMeter, call, entry

ADA, BOB = Principal("https://idp", "ada"), Principal("https://idp", "bob")


def a_call(principal: Principal = ADA, most: int | None = 2) -> Call:
    tool = entry()
    return call(principal=principal, entry=replace(tool, policy=replace(tool.policy, principal_concurrency=most)))


def a_step(meter: FakeMeter | None = None, *, queue: int = 0) -> PrincipalConcurrency:
    return PrincipalConcurrency(lambda most: Bulkhead(most, queue=queue), meter or FakeMeter())


async def passed(step: PrincipalConcurrency, one: Call) -> None:
    waits = step(one)
    if waits is not None:
        await waits


async def test_calls_beyond_the_bound_are_refused_and_told_what_to_do() -> None:
    meter = FakeMeter()
    step = a_step(meter)
    for _ in range(2):
        await passed(step, a_call())
    with pytest.raises(RateLimited) as refusal:
        await passed(step, a_call())
    assert (refusal.value.retry_after, refusal.value.rule) == (1.0, "principal_concurrency")
    assert "2 calls under way" in refusal.value.message
    (verdict,) = meter.verdicts
    assert verdict.refused is not None
    assert verdict.refused.name == "principal_concurrency"


async def test_a_call_that_ends_makes_place_for_the_next() -> None:
    step, first = a_step(), a_call(most=1)
    await passed(step, first)
    first.grant.end()
    await passed(step, a_call(most=1))


async def test_a_call_waits_for_one_of_its_principal_to_end() -> None:
    step, first, second = a_step(queue=1), a_call(most=1), a_call(most=1)
    await passed(step, first)
    waiting = asyncio.ensure_future(passed(step, second))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.grant.end()
    await waiting
    second.grant.end()
    await passed(step, a_call(most=1))


async def test_a_call_that_leaves_while_it_waits_takes_no_place() -> None:
    step, first = a_step(queue=1), a_call(most=1)
    await passed(step, first)
    waiting = asyncio.ensure_future(passed(step, a_call(most=1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    first.grant.end()
    await passed(step, a_call(most=1))


async def test_principals_do_not_meet() -> None:
    step = a_step()
    for principal in (ADA, BOB, Principal("https://other", "ada")):
        for _ in range(2):
            await passed(step, a_call(principal))


@pytest.mark.parametrize(("principal", "most"), [(ADA, None), (ANONYMOUS, 1)])
async def test_without_a_bound_or_an_identity_nothing_is_counted(principal: Principal, most: int | None) -> None:
    step = a_step()
    for _ in range(5):
        await passed(step, a_call(principal, most))
    assert len(step) == 0


async def test_a_bound_that_a_reload_changed_holds_for_new_calls() -> None:
    step = a_step()
    await passed(step, a_call(most=1))
    await passed(step, a_call(most=2))


async def test_principals_who_have_left_are_forgotten_and_those_who_call_are_not() -> None:
    step, running = a_step(), a_call(most=1)
    await passed(step, running)
    for number in range(5_000):
        one = a_call(Principal("https://idp", str(number)))
        await passed(step, one)
        one.grant.end()
    assert len(step) < 1_100
    with pytest.raises(RateLimited):
        await passed(step, a_call(most=1))
