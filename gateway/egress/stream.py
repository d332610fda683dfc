"""A TCP connection as ``httpcore2`` wants it, for calls: what is written leaves with the next read, in one packet.

``httpcore2`` writes the head of a request and its body apart, and asks each connection at rest, before each request,
whether there is something to read; over anyio both cost more than the request itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpcore2

_FLUSH = 64 * 1024
"""Bytes that wait for the next read; more are written at once."""

_FULL = 256 * 1024
"""Bytes that wait to be read, before the other side has to wait."""


class _Connection(asyncio.Protocol):
    """``transport`` once connected; ``error`` is what ended it, if it did not end in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport
        self.error: Exception | None = None
        self.ended = False
        self.received = bytearray()
        self._loop = loop
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    @property
    def readable(self) -> bool:
        """Whether a read would not wait: for bytes or for the end."""
        return self.ended or bool(self.received)

    async def until_readable(self) -> None:
        if not self.readable:
            self._reader = self._loop.create_future()
            await self._reader

    async def until_writable(self) -> None:
        await self._writable.wait()

    def take(self, most: int) -> bytes:
        """What has arrived, at most so many bytes."""
        data = bytes(self.received[:most])
        del self.received[:most]
        if self._paused and len(self.received) < _FULL and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        return data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= _FULL and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.error = exc
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


class Stream(httpcore2.AsyncNetworkStream):
    """See the module. One task reads, and one writes."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._unwritten: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """Write what waits, then wait for bytes; none at the end.

        Raises:
            ReadTimeout: none came in time.
            ReadError: the connection broke.
        """
        connection = self._connection
        if self._unwritten:
            self._flush()
        if not connection.readable:
            async with _within(timeout, httpcore2.ReadTimeout):
                await connection.until_readable()
        if connection.error is not None and not connection.received:
            raise httpcore2.ReadError(str(connection.error)) from connection.error
        return connection.take(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        """Keep a little for the next read; write much at once, and wait where the other side does not read.

        Raises:
            WriteTimeout: it did not in time.
            WriteError: the connection has ended.
        """
        connection = self._connection
        if connection.ended or connection.transport.is_closing():
            raise httpcore2.WriteError("the connection has ended")
        if buffer:
            self._unwritten.append(buffer)
        if len(buffer) >= _FLUSH:
            self._flush()
            async with _within(timeout, httpcore2.WriteTimeout):
                await connection.until_writable()

    async def aclose(self) -> None:
        """Close at once; what was not written is not."""
        self._unwritten.clear()
        self._connection.transport.abort()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection under TLS.

        Raises:
            ConnectTimeout: the handshake took too long.
            ConnectError: it failed.
        """
        connection = self._connection
        loop = asyncio.get_running_loop()
        try:
            async with _within(timeout, httpcore2.ConnectTimeout):
                transport = await loop.start_tls(
                    connection.transport, connection, ssl_context, server_hostname=server_hostname
                )
        except (OSError, ssl.SSLError) as error:
            await self.aclose()
            raise httpcore2.ConnectError(str(error)) from error
        if transport is None:
            raise httpcore2.ConnectError("the connection has ended")
        connection.transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """``is_readable`` of a connection at rest: it has ended, or talks without being asked."""
        if info == "is_readable":
            return self._connection.readable
        names = {"ssl_object": "ssl_object", "socket": "socket", "client_addr": "sockname", "server_addr": "peername"}
        return self._connection.transport.get_extra_info(names[info]) if info in names else None

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        self._connection.transport.write(unwritten[0] if len(unwritten) == 1 else b"".join(unwritten))


async def connect(address: str, port: int) -> Stream:
    """Connect to an address.

    Raises:
        ConnectError: nobody is there.
    """
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(lambda: _Connection(loop), address, port)
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
    return Stream(connection)


@asynccontextmanager
async def _within(seconds: float | None, late: type[Exception]) -> AsyncIterator[None]:
    if seconds is None:
        yield
        return
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise late(str(error)) from error
