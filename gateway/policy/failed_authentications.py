"""Has this address failed to authenticate too often? A flood of bad requests is refused before any of it is judged.

Nobody is locked out: an address is not a caller. Requests without a token and those with one are counted apart, so that
the former never stand in the way of a new token; a token that was accepted before is always judged; and what an address
may do is spread over time, so that a token that is new to this process has its turn within a moment of the flood's end,
at the latest. Counted in this process alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from gateway.errors import RateLimited

RULE = "GATEWAY_AUTH_FAILURES_PER_MINUTE"
BURST_SECONDS = 10.0
"""How long the steady rate adds up to what an address may fail at once."""

_MOST_ADDRESSES = 10_000
_RECORD_SECONDS = 1.0
_Key = tuple[str, bool]


class FailedAuthentications:
    """At most ``per_minute`` a minute of each address, and a burst of ten seconds' worth; 0 is any number.

    Of several thousand addresses the ones that failed longest ago are forgotten. ``clock`` gives seconds and never
    goes back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cost = 60.0 / per_minute if per_minute else 0.0
        self._span = max(BURST_SECONDS, self._cost)
        self._clock = clock
        self.arrivals: OrderedDict[_Key, float] = OrderedDict()
        """When each address that failed lately is whole again; empty while nobody fails: all that a call asks."""
        self._unrecorded: OrderedDict[_Key, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.arrivals) + len(self._unrecorded)

    def wait(self, address: str, *, token: bool) -> float:
        """Seconds until the next failure of this address may be judged; 0 where it may now."""
        arrival = self.arrivals.get((_network(address), token)) if self.arrivals else None
        if arrival is None:
            return 0.0
        return max(0.0, arrival - self._clock() + self._cost - self._span)

    def failed(self, address: str, *, token: bool) -> None:
        """Count a failure."""
        if not self._cost:
            return
        key, now = (_network(address), token), self._clock()
        self.arrivals[key] = max(self.arrivals.get(key, now), now) + self._cost
        self.arrivals.move_to_end(key)
        if len(self.arrivals) > _MOST_ADDRESSES:
            self.arrivals.popitem(last=False)

    def refusal(self, wait: float, before: int, *, token: bool) -> RateLimited:
        """What is said to a request that is not judged, after ``before`` others that are not on record."""
        what = "failed to authenticate" if token else "came without a token"
        return RateLimited(
            f"Too many requests from this address {what}; wait {max(1, round(wait + 0.5))} seconds.",
            limit_name=RULE,
            retry_after=max(wait, 0.001),
            rule=f"{RULE} ({before} before this one)" if before else RULE,
            hint="Get a new token if yours is not accepted." if token else "Send a token with every request.",
        )

    def refused(self, address: str, rule: str) -> tuple[bool, str]:
        """Count a request that is refused before anybody is authenticated.

        Whether it goes unrecorded, and its rule with how many before it did: nobody without a token may fill the disk.
        """
        if not self.wait(address, token=False):
            self.failed(address, token=False)
            return False, rule
        before = self.recorded(address, token=False)
        return before is None, f"{rule} ({before} before this one)".lstrip() if before else rule

    def recorded(self, address: str, *, token: bool) -> int | None:
        """Whether such a refusal is to be recorded: how many were not since the last that was, or None for not.

        One a second of each address is, because a flood must not fill the disk that calls need.
        """
        key, now = (_network(address), token), self._clock()
        since, count = self._unrecorded.get(key, (float("-inf"), 0))
        if now - since < _RECORD_SECONDS:
            self._unrecorded[key] = since, count + 1
            return None
        self._unrecorded[key] = now, 0
        self._unrecorded.move_to_end(key)
        if len(self._unrecorded) > _MOST_ADDRESSES:
            self._unrecorded.popitem(last=False)
        return count


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The address, or of IPv6 the /64 that one customer has; IPv4 may come written as IPv6."""
    if ":" not in address:
        return address
    if "." in address:
        return address.rpartition(":")[2]
    head, gap, tail = address.partition("::")
    groups = [part for part in head.split(":") if part]
    after = [part for part in tail.split(":") if part] if gap else []
    return ":".join((groups + ["0"] * (8 - len(groups) - len(after)) + after)[:4])
