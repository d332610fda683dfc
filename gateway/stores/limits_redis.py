"""Limits counted in Redis, over all replicas: one script, one round trip for all limits of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from gateway.errors import Overloaded
from gateway.models import LimitState
from gateway.ports import Take, Verdict
from gateway.stores.leases import LEASE, Leases
from gateway.stores.limits_memory import MemoryLimits, verdict_of
from gateway.stores.limits_script import PREFIX, Decision, LimitsScript, Plan
from gateway.stores.redis_connection import RedisConnection

_MOST_PLANS = 10_000

OnFailure = Literal["local", "open", "closed"]


class RedisLimits:
    """A ``LimitStore`` that is atomic over all replicas and decides without Redis when that is away.

    ``on_failure``: ``local`` counts in this process with ``1 / expected_replicas`` of every limit, ``open`` admits,
    ``closed`` refuses. ``on_change`` is told when Redis comes and goes. ``lease`` is how long, in seconds, a process
    that died holds its places in concurrency limits.
    """

    def __init__(
        self,
        url: str,
        *,
        on_failure: OnFailure,
        expected_replicas: int = 1,
        on_change: Callable[[bool], None] | None = None,
        lease: float = LEASE,
    ) -> None:
        self.connection = RedisConnection(url, self._changed)
        self._on_change = on_change
        self._script = LimitsScript(self.connection)
        self._leases = Leases(self.connection, lease)
        self._renewing: asyncio.Task[None] | None = None
        self._on_failure = on_failure
        self._local = MemoryLimits(share=expected_replicas, degraded=True)
        self._plans: dict[int, Plan] = {}

    @property
    def up(self) -> bool:
        """Whether Redis decides now, not the outage policy."""
        return self.connection.up

    async def start(self) -> None:
        """Connect, and go on trying in the background. Starts degraded where Redis is away."""
        await self.connection.start()
        self._renewing = asyncio.create_task(self._leases.keep_renewing(), name="leases")

    async def aclose(self) -> None:
        """Close the connection; from then on the outage policy answers."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self.connection.aclose()

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count; see ``ports.LimitStore``.

        Raises:
            Overloaded: Redis is away and the policy is ``closed``.
        """
        if not takes:
            return Verdict(None, 0.0)
        plan = self._plans.get(id(takes)) or self._plan(tuple(takes))
        if plan.held:
            return await self._take_and_hold(plan)
        decision = await self._script.ask(plan)
        if decision is None:
            return await self._without_redis(plan.takes)
        return _verdict(plan, decision)

    async def _take_and_hold(self, plan: Plan) -> Verdict:
        """The same with a lease for the concurrency limits, which the verdict gives back."""
        takes, name = plan.takes, self._leases.name()
        try:
            decision = await self._script.ask_for_lease(plan, name, self._leases.microseconds)
        except asyncio.CancelledError:
            self._leases.give_back(name, plan.held)  # it may be decided by now; commands keep their order
            raise
        if decision is None:
            verdict = await self._without_redis(takes)
        else:
            verdict = _verdict(plan, decision)
        held = [take.key for take in takes if take.limit.concurrent and take.limit not in verdict.watching]
        if verdict.refused is not None or not held:
            return verdict
        # Counted here too: should Redis go away, what runs is known.
        counted = verdict.release or self._local.hold(held)
        release = self._leases.keep(name, [PREFIX + key for key in held], counted)
        return replace(verdict, release=release)

    def _plan(self, takes: tuple[Take, ...]) -> Plan:
        """The same tuple comes back for every call of a caller to a tool: found by identity, which its plan keeps."""
        plan = self._plans.get(id(takes))
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[id(takes)] = Plan(takes)
        return plan

    def _changed(self, up: bool) -> None:
        if up:
            self._leases.renew()
        if self._on_change is not None:
            self._on_change(up)

    async def _without_redis(self, takes: Sequence[Take]) -> Verdict:
        if self._on_failure == "local":
            return await self._local.take(takes)
        if self._on_failure == "open" or not any(take.limit.enforce for take in takes):
            states = tuple(LimitState(take.limit, take.limit.burst, 0.0) for take in takes)
            return Verdict(None, 0.0, lambda: states, degraded=True)
        raise Overloaded(
            "Rate limits cannot be counted at the moment, so the call was not executed; call again in 1 second.",
            retry_after=1.0,
            rule="GATEWAY_ON_REDIS_FAILURE",
        )


def _verdict(plan: Plan, decision: Decision) -> Verdict:
    """In words what the script says: which limit refused, counted from 1, for how long, and how all of them stand."""
    return verdict_of(plan.takes, plan.costs, decision[2:], refused=decision[0] - 1, wait=decision[1])
