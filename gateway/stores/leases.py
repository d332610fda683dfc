"""Places in concurrency limits that calls of this process hold in Redis.

A place is a lease: it ends by itself, so that a process that dies gives back what it held, and it is renewed while its
call runs. Whatever was lost in between, by Redis or by the connection, is there again with the next renewal.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

from gateway.stores.redis_connection import RedisConnection

LEASE = 15.0
"""Seconds until the places of a process that died are free."""

_RENEW = files("gateway.stores").joinpath("leases.lua").read_bytes()
_RENEWED_AT_ONCE = 500
_MICRO = 1_000_000


class Leases:
    """Those of this process. ``seconds`` is how long one holds without being renewed."""

    def __init__(self, connection: RedisConnection, seconds: float = LEASE) -> None:
        self._connection = connection
        self._seconds = seconds
        self._process = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._held: dict[str, Sequence[str]] = {}

    @property
    def microseconds(self) -> int:
        """How long one holds, as the scripts are told."""
        return round(self._seconds * _MICRO)

    def name(self) -> str:
        """Of a new lease; no other has it."""
        return f"{self._process}:{next(self._numbers)}"

    def keep(self, name: str, keys: Sequence[str], then: Callable[[], None]) -> Callable[[], None]:
        """Renew a lease until what is returned is called, which goes on with ``then``."""
        self._held[name] = keys

        def release() -> None:
            del self._held[name]
            self.give_back(name, keys)
            then()

        return release

    def give_back(self, name: str, keys: Sequence[str]) -> None:
        """Free the places of a lease that is not kept, or no longer."""
        for key in keys:
            self._connection.tell("ZREM", key, name)

    def renew(self) -> None:
        """Let every lease hold anew; does not wait."""
        pairs = list(self._pairs())
        for start in range(0, len(pairs), _RENEWED_AT_ONCE):
            keys, names = zip(*pairs[start : start + _RENEWED_AT_ONCE], strict=True)
            self._connection.tell("EVAL", _RENEW, len(keys), *keys, self.microseconds, *names)

    async def keep_renewing(self) -> None:
        """Renew in time, for ever."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            self.renew()

    def _pairs(self) -> Iterator[tuple[str, str]]:
        return ((key, name) for name, keys in self._held.items() for key in keys)
