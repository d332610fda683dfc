"""Unit: what deploying means, over the store in memory. No MCP, no clock, no waiting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import anyio
import pytest

from examples.deploy_tools.errors import (
    DeployInProgress,
    NeverDeployed,
    NothingToRollBackTo,
    StoreUnavailable,
    UnknownService,
)
from examples.deploy_tools.models import Deployment, Environment, State
from examples.deploy_tools.service import STEPS, Deployments, previous, running
from examples.deploy_tools.store import LEASE, InMemoryStore

PRODUCTION = Environment.PRODUCTION
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore(["checkout", "search"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deployments(store: InMemoryStore, clock: Clock) -> Deployments:
    numbers = itertools.count(1)
    return Deployments(store, now=clock, new_id=lambda: f"d{next(numbers)}")


def deployment(version: str, state: State = State.SUCCEEDED, rolled_back_from: str | None = None) -> Deployment:
    return Deployment(
        id=version,
        service="checkout",
        environment=PRODUCTION,
        version=version,
        state=state,
        started_at=START,
        rolled_back_from=rolled_back_from,
    )


async def test_a_deployment_runs_when_it_has_ended(deployments: Deployments) -> None:
    done = await deployments.deploy("checkout", "1.0.0", PRODUCTION)
    status = await deployments.status("checkout", PRODUCTION)
    assert (done.id, done.state, status.running, status.latest) == ("d1", State.SUCCEEDED, "1.0.0", done)


async def test_progress_counts_every_step_to_the_end(deployments: Deployments) -> None:
    seen: list[tuple[int, int, str]] = []

    async def progress(done: int, of: int, message: str) -> None:
        seen.append((done, of, message))

    await deployments.deploy("checkout", "1.0.0", PRODUCTION, progress)
    assert [done for done, _, _ in seen] == list(range(len(STEPS) + 1))
    assert {of for _, of, _ in seen} == {len(STEPS)}


async def test_a_second_deployment_waits_for_the_first(deployments: Deployments) -> None:
    async def meanwhile(done: int, _of: int, _message: str) -> None:
        if done == 1:
            with pytest.raises(DeployInProgress) as refused:
                await deployments.deploy("checkout", "2.0.0", PRODUCTION)
            assert refused.value.retryable
            await deployments.deploy("checkout", "2.0.0", Environment.DEV)

    await deployments.deploy("checkout", "1.0.0", PRODUCTION, meanwhile)
    assert (await deployments.status("checkout", PRODUCTION)).running == "1.0.0"


async def test_a_caller_that_hangs_up_leaves_a_failed_deployment_not_one_in_progress(deployments: Deployments) -> None:
    with anyio.CancelScope() as scope:

        async def hang_up(done: int, _of: int, _message: str) -> None:
            if done == 2:
                scope.cancel()
                await anyio.lowlevel.checkpoint()

        await deployments.deploy("checkout", "1.0.0", PRODUCTION, hang_up)
    status = await deployments.status("checkout", PRODUCTION)
    assert (status.running, status.latest.state) == (None, State.FAILED)
    await deployments.deploy("checkout", "1.0.1", PRODUCTION)


async def test_a_deployment_lost_in_an_outage_blocks_until_its_lease_ends(
    deployments: Deployments, store: InMemoryStore, clock: Clock
) -> None:
    async def fail(done: int, _of: int, _message: str) -> None:
        store.outage = done >= 1

    with pytest.raises(StoreUnavailable) as error:
        await deployments.deploy("checkout", "1.0.0", PRODUCTION, fail)
    assert error.value.retryable
    store.outage = False
    with pytest.raises(DeployInProgress):
        await deployments.deploy("checkout", "1.0.0", PRODUCTION)
    clock.time += LEASE + timedelta(seconds=1)
    assert (await deployments.deploy("checkout", "1.0.0", PRODUCTION)).state is State.SUCCEEDED


async def test_a_rollback_brings_the_version_before_back_and_says_why(deployments: Deployments) -> None:
    await deployments.deploy("checkout", "1.0.0", PRODUCTION)
    await deployments.deploy("checkout", "2.0.0", PRODUCTION)
    done = await deployments.rollback("checkout", PRODUCTION, "errors doubled")
    assert (done.version, done.rolled_back_from, done.reason) == ("1.0.0", "2.0.0", "errors doubled")


async def test_a_second_rollback_goes_one_further_back(deployments: Deployments) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        await deployments.deploy("checkout", version, PRODUCTION)
    await deployments.rollback("checkout", PRODUCTION, "errors doubled")
    assert (await deployments.rollback("checkout", PRODUCTION, "still")).version == "1.0.0"
    with pytest.raises(NothingToRollBackTo):
        await deployments.rollback("checkout", PRODUCTION, "still")


async def test_services_are_listed_with_what_runs_of_them(deployments: Deployments) -> None:
    await deployments.deploy("checkout", "1.0.0", PRODUCTION)
    await deployments.deploy("search", "0.1.0", Environment.DEV)
    everywhere, there = await deployments.list(None), await deployments.list(PRODUCTION)
    assert everywhere.services == there.services == ["checkout", "search"]
    assert {(row.service, row.version) for row in everywhere.running} == {("checkout", "1.0.0"), ("search", "0.1.0")}
    assert [row.service for row in there.running] == ["checkout"]


async def test_a_service_that_does_not_exist_is_told_from_one_that_was_never_deployed(deployments: Deployments) -> None:
    with pytest.raises(UnknownService):
        await deployments.status("nope", PRODUCTION)
    with pytest.raises(NeverDeployed):
        await deployments.status("checkout", PRODUCTION)


@pytest.mark.parametrize(
    ("newest_first", "expected"),
    [
        ([], None),
        ([deployment("1.0.0")], None),
        ([deployment("1.0.0"), deployment("1.0.0")], None),
        ([deployment("2.0.0", State.FAILED), deployment("1.0.0")], None),
        ([deployment("3.0.0"), deployment("2.0.0", State.FAILED), deployment("1.0.0")], "1.0.0"),
        ([deployment("1.0.0", rolled_back_from="2.0.0"), deployment("2.0.0"), deployment("1.0.0")], None),
        ([deployment("3.0.0"), deployment("1.0.0", rolled_back_from="2.0.0"), deployment("2.0.0")], None),
    ],
)
def test_only_versions_that_ran_and_were_not_rolled_back_are_returned_to(
    newest_first: Sequence[Deployment], expected: str | None
) -> None:
    found = previous(newest_first)
    assert (found.version if found else None) == expected


def test_a_failed_deployment_does_not_run() -> None:
    assert running([deployment("2.0.0", State.FAILED), deployment("1.0.0")]) == deployment("1.0.0")


async def test_latency_varies_by_half_around_its_mean() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    store = InMemoryStore(["checkout"], latency=0.04, random=Random(7), sleep=sleep)
    for _ in range(200):
        await store.services()
    assert min(waits) >= 0.02
    assert max(waits) <= 0.06
    assert len(set(waits)) > 100


async def test_no_latency_means_no_wait() -> None:
    async def sleep(_seconds: float) -> None:
        raise AssertionError

    assert await InMemoryStore(["checkout"], sleep=sleep).services() == ("checkout",)
