"""Limits counted in Redis, over all replicas: one script, one round trip for all limits of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Literal

from hiredis import ReplyError

from gateway.errors import Overloaded
from gateway.ports import LimitState, Take, Verdict
from gateway.stores.limits_memory import MemoryLimits, cost_of, verdict_of
from gateway.stores.redis_connection import TAG, RedisAway, RedisConnection, pack

SCRIPT = files("gateway.stores").joinpath("limits.lua").read_bytes()
_SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest()
_PREFIX = TAG.decode() + "limit:"
_MOST_PLANS = 10_000

OnFailure = Literal["local", "open", "closed"]


def counter_of(take: Take) -> str:
    """The key in Redis of what a take counts by."""
    return _PREFIX + take.key


class _Plan:
    """What is sent for these takes, ready made. It holds them, so that no others can have their identity."""

    __slots__ = ("arguments", "command", "costs", "takes")

    def __init__(self, takes: tuple[Take, ...], costs: list[tuple[int, int]]) -> None:
        self.takes = takes
        self.costs = costs
        keys = [_PREFIX + take.key for take in takes]
        self.arguments: list[str | int] = [len(keys), *keys, *(number for pair in costs for number in pair)]
        self.command = pack("EVALSHA", _SHA, *self.arguments)


class RedisLimits:
    """A ``LimitStore`` that is atomic over all replicas and decides without Redis when that is away.

    ``on_failure``: ``local`` counts in this process with ``1 / expected_replicas`` of every limit, ``open`` admits,
    ``closed`` refuses. ``on_change`` is told when Redis comes and goes.
    """

    def __init__(
        self,
        url: str,
        *,
        on_failure: OnFailure,
        expected_replicas: int = 1,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self.connection = RedisConnection(url, on_change)
        self._on_failure = on_failure
        self._local = MemoryLimits(share=expected_replicas, degraded=True)
        self._plans: dict[int, _Plan] = {}

    @property
    def up(self) -> bool:
        """Whether Redis decides now, not the outage policy."""
        return self.connection.up

    async def start(self) -> None:
        """Connect, and go on trying in the background. Starts degraded where Redis is away."""
        await self.connection.start()

    async def aclose(self) -> None:
        """Close the connection; from then on the outage policy answers."""
        await self.connection.aclose()

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count; see ``ports.LimitStore``.

        Raises:
            Overloaded: Redis is away and the policy is ``closed``.
        """
        if not takes:
            return Verdict(None, 0.0, ())
        plan = self._plan(tuple(takes))
        decision = await self._ask(plan)
        if decision is None:
            return await self._without_redis(takes)
        refused, wait, *ahead = decision
        return verdict_of(takes, plan.costs, ahead, refused=refused - 1, wait=wait)

    def _plan(self, takes: tuple[Take, ...]) -> _Plan:
        """The same tuple comes back for every call of a caller to a tool: found by identity, which its plan keeps."""
        plan = self._plans.get(id(takes))
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[id(takes)] = _Plan(takes, [cost_of(take.limit) for take in takes])
        return plan

    async def _ask(self, plan: _Plan) -> list[int] | None:
        """The script's answer, or None where there is no Redis to give it."""
        try:
            reply = await self.connection.send(plan.command)
            if isinstance(reply, ReplyError):  # a new or flushed server does not know the script
                reply = await self.connection.call("EVAL", SCRIPT, *plan.arguments)
        except RedisAway:
            return None
        decision: list[int] = reply
        return decision

    async def _without_redis(self, takes: Sequence[Take]) -> Verdict:
        if self._on_failure == "local":
            return await self._local.take(takes)
        if self._on_failure == "open":
            states = tuple(LimitState(take.limit, take.limit.burst, 0.0) for take in takes)
            return Verdict(None, 0.0, states, degraded=True)
        raise Overloaded(
            "Rate limits cannot be counted at the moment, so the call was not executed; call again in 1 second.",
            retry_after=1.0,
            rule="GATEWAY_ON_REDIS_FAILURE",
        )
