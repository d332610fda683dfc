"""Small values that outlive a request and are shared by replicas, as a port. What is kept is sealed by who keeps it."""

from __future__ import annotations

from typing import Protocol


class VaultAway(Exception):  # noqa: N818 - a state of the world, handled by every caller
    """The store cannot be asked now."""


class Vault(Protocol):
    """Texts under keys, each for a time."""

    async def put(self, key: str, value: str, seconds: float) -> None:
        """Keep a value, in place of an older one.

        Raises:
            VaultAway: it is not kept.
        """
        ...

    async def get(self, key: str) -> str | None:
        """The value, or None.

        Raises:
            VaultAway: it is not known.
        """
        ...

    async def replace(self, key: str, former: str, value: str, seconds: float) -> bool:
        """Keep a value in place of ``former``, unless that is there no longer. True where it was; in one step.

        Raises:
            VaultAway: it is not known which one is there.
        """
        ...

    async def forget(self, key: str, value: str) -> bool:
        """Forget a value, unless another has taken its place. True where it was there; in one step.

        Raises:
            VaultAway: it may still be there.
        """
        ...

    async def claim(self, key: str, seconds: float) -> bool:
        """True for the first who claims a key within ``seconds``, False for all others.

        Raises:
            VaultAway: it is not known who was first.
        """
        ...

    async def release(self, key: str) -> None:
        """Let another claim a key that was claimed.

        Raises:
            VaultAway: it is still claimed, until its time is over.
        """
        ...
