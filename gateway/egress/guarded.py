"""Connecting to an address that was judged: a name is resolved once, and what was judged is what is connected to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from gateway.egress.addresses import Reach, may_reach
from gateway.egress.stream import connect


class AddressRefusedError(OSError):
    """The name leads only to addresses that are not to be reached."""

    def __init__(self) -> None:
        super().__init__("address not allowed")


async def resolve(host: str, port: int, reach: Reach) -> list[str]:
    """The addresses of a host that may be reached, in the order of preference; at least one.

    Raises:
        AddressRefusedError: there are addresses, none of which may be.
        OSError: there is no such host.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [address for address in addresses if may_reach(address, reach)]
    if not allowed:
        raise AddressRefusedError
    return allowed


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """Connections of an ``httpx2`` client, within ``reach``, without proxies of the environment."""

    def __init__(self, reach: Reach, *, verify: ssl.SSLContext | bool = True, limits: httpx2.Limits) -> None:
        context = ssl.create_default_context() if verify is True else verify
        super().__init__(verify=context, trust_env=False, limits=limits)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context if isinstance(context, ssl.SSLContext) else None,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Guarded(reach),
        )


class _Guarded(httpcore2.AsyncNetworkBackend):
    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error

    async def _connect(self, host: str, port: int) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await resolve(host, port, self._reach)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        for address in addresses[:-1]:
            try:
                return await connect(address, port)
            except httpcore2.ConnectError:
                continue
        return await connect(addresses[-1], port)
