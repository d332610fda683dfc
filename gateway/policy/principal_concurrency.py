"""Has this principal room for one more call? So that one agent in a loop cannot take what the others need.

Counted in this process alone: a replica protects itself, and no call has to ask another machine for it. A call over the
bound waits for a moment, because agents send what they have all at once. Where nobody is authenticated there is nobody
to tell apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from gateway.errors import RateLimited
from gateway.models import ANONYMOUS, Call, Limit
from gateway.ports import Meter, Room, Verdict

PATIENCE = 1.0
"""Seconds that a call waits for another of its principal to end."""

_NAME = "principal_concurrency"
_KEPT = 1_000
_LOOKED_AT = 2
_Who = tuple[str, str, int]


class PrincipalConcurrency:
    """The check. ``room`` makes place for so many calls of one principal; ``meter`` sees what is refused."""

    def __init__(self, room: Callable[[int], Room], meter: Meter) -> None:
        self._room = room
        self._meter = meter
        self._rooms: OrderedDict[_Who, Room] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rooms)

    def __call__(self, call: Call) -> Awaitable[None] | None:
        """Take a place, which the call gives back when it ends.

        Raises:
            RateLimited: no call of this principal ended in time, or too many of its calls wait.
        """
        principal, most = call.principal, call.entry.policy.principal_concurrency
        if most is None or principal is ANONYMOUS:
            return None
        who = (principal.issuer, principal.subject, most)
        room = self._rooms.get(who) or self._opened(who)
        if not room.take():
            return self._wait(call, room, most)
        call.grant.held += (room.release,)
        return None

    async def _wait(self, call: Call, room: Room, most: int) -> None:
        if not await room.wait(PATIENCE):
            limit = Limit(_NAME, ("principal",), most, 0.0, most, concurrent=True)
            self._meter.limits((), Verdict(limit, PATIENCE))
            raise _refusal(call, most)
        call.grant.held += (room.release,)

    def _opened(self, who: _Who) -> Room:
        """A new room; of many, the oldest that are empty make way. One that is in use has to stay."""
        rooms = self._rooms
        for _ in range(_LOOKED_AT if len(rooms) >= _KEPT else 0):
            oldest, room = rooms.popitem(last=False)
            if room.taken:
                rooms[oldest] = room
        room = rooms[who] = self._room(who[2])
        return room


def _refusal(call: Call, most: int) -> RateLimited:
    return RateLimited(
        f"You have {most} calls under way, which is as many as may be; "
        f"wait {PATIENCE} seconds before calling {call.entry.name} again.",
        limit_name=_NAME,
        retry_after=PATIENCE,
        rule=_NAME,
        hint="Nobody knows when a running call ends; call again when one of yours has.",
    )
