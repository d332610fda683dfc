"""``vault.Vault`` in the process and in Redis."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from gateway.stores.redis_connection import TAG, RedisAway, RedisConnection
from gateway.vault import VaultAway

_WHILE = files("gateway.stores").joinpath("vault.lua").read_bytes()
_MOST = 100_000


class MemoryVault:
    """For one process; what it holds ends with it. At most ``most`` values of each kind, which a key names before its
    colon; beyond that the oldest of the kind is forgotten, so that links crowd out no grants.

    ``clock`` gives seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._kinds: dict[str, OrderedDict[str, tuple[float, str]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    async def put(self, key: str, value: str, seconds: float) -> None:
        """See ``Vault``."""
        values = self._like(key)
        values.pop(key, None)
        while len(values) >= self._most:
            values.popitem(last=False)
        values[key] = (self._clock() + seconds, value)

    async def get(self, key: str) -> str | None:
        """See ``Vault``."""
        values = self._like(key)
        until, value = values.get(key, (0.0, ""))
        if until > self._clock():
            return value
        values.pop(key, None)
        return None

    async def replace(self, key: str, former: str, value: str, seconds: float) -> bool:
        """See ``Vault``."""
        if await self.get(key) != former:
            return False
        await self.put(key, value, seconds)
        return True

    async def forget(self, key: str, value: str) -> bool:
        """See ``Vault``."""
        if await self.get(key) != value:
            return False
        self._like(key).pop(key, None)
        return True

    async def claim(self, key: str, seconds: float) -> bool:
        """See ``Vault``."""
        if await self.get(key) is not None:
            return False
        await self.put(key, "1", seconds)
        return True

    async def release(self, key: str) -> None:
        """See ``Vault``."""
        self._like(key).pop(key, None)

    def _like(self, key: str) -> OrderedDict[str, tuple[float, str]]:
        return self._kinds.setdefault(key.rpartition(":")[0], OrderedDict())


class RedisVault:
    """Over all replicas. Nothing is kept in the process, because another may have replaced it."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def put(self, key: str, value: str, seconds: float) -> None:
        """See ``Vault``."""
        await self._call("SET", _key(key), value, "PX", _milliseconds(seconds))

    async def get(self, key: str) -> str | None:
        """See ``Vault``."""
        (value,) = await self._call("MGET", _key(key))
        return value.decode("ascii", "replace") if value is not None else None

    async def replace(self, key: str, former: str, value: str, seconds: float) -> bool:
        """See ``Vault``."""
        return await self._while(key, former, value, _milliseconds(seconds))

    async def forget(self, key: str, value: str) -> bool:
        """See ``Vault``."""
        return await self._while(key, value)

    async def claim(self, key: str, seconds: float) -> bool:
        """See ``Vault``."""
        return await self._call("SET", _key(key), "1", "NX", "PX", _milliseconds(seconds)) is not None

    async def release(self, key: str) -> None:
        """See ``Vault``."""
        await self._call("DEL", _key(key))

    async def _while(self, key: str, value: str, *then: str | int) -> bool:
        changed: int = await self._call("EVAL", _WHILE, 1, _key(key), value, *then)
        return changed == 1

    async def _call(self, *arguments: bytes | str | int) -> Any:
        try:
            return await self._connection.call(*arguments)
        except RedisAway as error:
            raise VaultAway from error


def _key(key: str) -> bytes:
    return TAG + b"vault:" + key.encode()


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
