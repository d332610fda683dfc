"""Calls that come together are decided together: one script and one round trip for all their limits.

Calls that count alike, which is what a busy agent sends, are one group: the script reads and writes each counter once,
however many they are. Redis works a third as long for them, and the calls wait for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import sha1
from importlib.resources import files
from typing import Any

from hiredis import ReplyError

from gateway.ports import Take
from gateway.stores.limits_memory import cost_of
from gateway.stores.redis_connection import LOST, TAG, RedisAway, RedisConnection, bulks

SCRIPT = files("gateway.stores").joinpath("limits.lua").read_bytes()
MOST = 64
"""Calls that one run of the script decides at most; nobody else is served meanwhile."""
PREFIX = TAG.decode() + "limit:"

_SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest()

Decision = Sequence[int]
"""What the script returns for a call."""


def counter_of(take: Take) -> str:
    """The key in Redis of what a take counts by."""
    return PREFIX + take.key


class Plan:
    """What is sent for these takes, ready made. It holds them, so that no others can have their identity."""

    __slots__ = ("costs", "held", "keys", "limits", "takes")

    def __init__(self, takes: tuple[Take, ...]) -> None:
        self.takes = takes
        self.costs = [cost_of(take.limit) for take in takes]
        self.held = [counter_of(take) for take in takes if take.limit.concurrent]
        self.keys = bulks(*map(counter_of, takes))
        self.limits = bulks(*told_of(takes))


def told_of(takes: Sequence[Take]) -> list[int | str]:
    """What the script is told of the limits of a call."""
    told: list[int | str] = [len(takes)]
    for take in takes:
        kind = "c" if take.limit.concurrent else "r"
        told += [*cost_of(take.limit), kind if take.limit.enforce else kind.upper()]
    return told


class _Group:
    """Calls that count alike. ``lease`` is of the only one, packed, where it has to give something back."""

    __slots__ = ("lease", "plan", "waiting")

    def __init__(self, plan: Plan, lease: bytes = b"") -> None:
        self.plan = plan
        self.lease = lease
        self.waiting: list[asyncio.Future[Decision | None]] = []


class LimitsScript:
    """Asks Redis over ``connection``. What came in two turns of the event loop leaves together, as commands do."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._groups: dict[object, _Group] = {}
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: set[asyncio.Task[None]] = set()

    def ask(self, plan: Plan) -> asyncio.Future[Decision | None]:
        """The decision on one call; None where there is no Redis to give it."""
        return self._join(plan, plan, b"")

    def ask_for_lease(self, plan: Plan, name: str, microseconds: int) -> asyncio.Future[Decision | None]:
        """The same of a call that takes places: its lease and how long that holds.

        Whoever gives the lease back after the future was cancelled gives back all that was taken.
        """
        return self._join(object(), plan, bulks(name, microseconds))

    def _join(self, alike: object, plan: Plan, lease: bytes) -> asyncio.Future[Decision | None]:
        loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Decision | None] = loop.create_future()
        if not self._connection.up:
            future.set_result(None)
            return future
        group = self._groups.get(alike)
        if group is None:
            if not self._groups:
                self._loop = loop
                loop.call_soon(loop.call_soon, self._send)
            group = self._groups[alike] = _Group(plan, lease)
        group.waiting.append(future)
        self._count += 1
        if self._count >= MOST:
            self._send()
        return future

    def _send(self) -> None:
        groups, self._groups, self._count = list(self._groups.values()), {}, 0
        command = _command(groups, "EVALSHA", _SHA)
        if command:
            reply = self._connection.queue(command)
            self._connection.flush()
            reply.add_done_callback(partial(self._replied, groups))

    def _replied(self, groups: Sequence[_Group], reply: asyncio.Future[Any]) -> None:
        decisions = reply.result()
        if isinstance(decisions, ReplyError):
            task = asyncio.get_running_loop().create_task(self._by_text(groups))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
        else:
            _answer(groups, None if decisions is LOST else decisions)

    async def _by_text(self, groups: Sequence[_Group]) -> None:
        """The script sent whole, to a new or flushed server."""
        decisions: Sequence[Decision] | None = None
        try:
            command = _command(groups, "EVAL", SCRIPT)
            decisions = await self._connection.send(command) if command else ()
        except RedisAway:
            pass
        finally:
            _answer(groups, decisions)


def _command(groups: Sequence[_Group], word: str, script: bytes | str) -> bytes:
    """One run of the script for all calls that still wait, or nothing: who left takes nothing."""
    keys: list[bytes] = []
    arguments: list[bytes] = []
    limits = others = 0
    for group in groups:
        group.waiting = [future for future in group.waiting if not future.done()]
        if group.waiting:
            keys.append(group.plan.keys)
            arguments += (bulks(len(group.waiting)), group.plan.limits, group.lease)
            limits += len(group.plan.takes)
            others += 4 if group.lease else 2  # how many calls, how many limits; the lease and its time
    if not keys:
        return b""
    count = 3 + limits + others + 3 * limits
    return b"".join([b"*%d\r\n" % count, bulks(word, script, limits), *keys, *arguments])


def _answer(groups: Sequence[_Group], decisions: Sequence[Decision] | None) -> None:
    """Each call that was asked for gets its own, in their order; all get None where there are none."""
    given = iter(decisions or ())
    for group in groups:
        for future in group.waiting:
            decision = next(given, None)
            if not future.done():
                future.set_result(decision)
