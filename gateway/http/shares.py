"""How much each principal has of what a process has once for all, so that none takes it from the others.

A share is a quarter: it is thousands of streams, more than the agents of one principal need, and while one has all that
it may, three more can have as much. Where nobody is authenticated there is one principal, and it has the whole.
"""

from __future__ import annotations

from gateway.errors import RateLimited
from gateway.models import Principal

PARTS = 4


def share(principal: Principal, whole: int) -> int:
    """How much of ``whole`` it may have."""
    return whole // PARTS if principal.issuer else whole


class Shares:
    """Counts ``what`` by principal. One that is refused is told to wait for ``seconds``."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._held: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """Principals that have any."""
        return len(self._held)

    def of(self, principal: Principal) -> int:
        """What it has."""
        return self._held.get((principal.issuer, principal.subject), 0)

    def add(self, principal: Principal, change: int) -> None:
        """It has so many more, or less."""
        who = (principal.issuer, principal.subject)
        self._held[who] = self._held.get(who, 0) + change
        if not self._held[who]:
            del self._held[who]

    def refuse_over(self, principal: Principal, whole: int, more: int = 1) -> None:
        """Whether it may have ``more`` of ``whole``.

        Raises:
            RateLimited: that is over its share.
        """
        most = share(principal, whole)
        if self.of(principal) + more > most:
            name = f"share.{self._what}"
            raise RateLimited(
                f"You may have {most} {self._what} here and have {self.of(principal)}; wait {self._seconds} seconds.",
                limit_name=name,
                retry_after=self._seconds,
                rule=name,
                hint="Close those that you do not need.",
            )
