"""Connections for ``httpcore2``, with real sockets: one packet a request, flow control both ways, ends, deadlines."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpcore2
import httpx2
import pytest

from gateway.egress.guarded import GuardedTransport
from gateway.egress.stream import Stream, connect

from .servers.start import until
from .test_http1_client import OK, Server, answers, self_signed

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[Stream]:
    async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(ended, "127.0.0.1", 0)
    stream = await connect("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield stream
    finally:
        await stream.aclose()
        server.close()


async def test_what_is_written_leaves_with_the_next_read_in_one_packet() -> None:
    packets: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets.append(await reader.read(100))
        writer.write(b"answer")

    async with connected(serve) as stream:
        await stream.write(b"head ")
        await stream.write(b"")
        await stream.write(b"body")

        assert await stream.read(3) == b"ans"
        assert await stream.read(100) == b"wer"
        assert await stream.read(100) == b""
    assert packets == [b"head body"]


async def test_a_connection_at_rest_is_readable_once_the_other_side_has_ended_it() -> None:
    released = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await released.wait()

    async with connected(serve) as stream:
        assert not stream.get_extra_info("is_readable")
        released.set()
        await until(lambda: stream.get_extra_info("is_readable"))
        with pytest.raises(httpcore2.WriteError):
            await stream.write(b"x")


async def test_megabytes_pass_both_ways_in_bounded_memory() -> None:
    size = 8 * 2**20

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(size))
        await writer.drain()

    async with connected(serve) as stream:
        sent = os.urandom(size)
        for start in range(0, size, 2**20):
            await stream.write(sent[start : start + 2**20], timeout=10)
        received = bytearray()
        while len(received) < size:
            received += await stream.read(2**16, timeout=10)
            assert len(stream._connection.received) < 2**20
    assert received == sent


async def test_silence_and_a_reader_that_stopped_have_their_time() -> None:
    async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with connected(serve) as stream:
        with pytest.raises(httpcore2.ReadTimeout):
            await stream.read(10, timeout=0.05)
        with pytest.raises(httpcore2.WriteTimeout):
            await stream.write(b"x" * 2**26, timeout=0.05)


async def test_a_connection_that_breaks_is_an_error_and_not_an_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        linger = struct.pack("ii", 1, 0)  # a reset and no end
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with connected(serve) as stream:
        await stream.write(b"xx")
        with pytest.raises(httpcore2.ReadError):
            await stream.read(10)


async def test_where_nobody_is_there_is_no_connection() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(httpcore2.ConnectError):
        await connect("127.0.0.1", port)


async def test_under_tls_the_name_is_verified_and_a_connection_used_again(tmp_path: Path) -> None:
    tls, trusting = self_signed(tmp_path, "localhost")
    async with Server(answers(OK)).run(tls) as server:
        transport = GuardedTransport("configured", verify=trusting, limits=httpx2.Limits())
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
            assert [(await client.post(f"https://localhost:{server.port}/", content=b"x")).text for _ in range(3)] == [
                "ok"
            ] * 3
            assert len(server.peers) == 1
            with pytest.raises(httpx2.ConnectError):
                await client.post(f"https://127.0.0.1:{server.port}/", content=b"x")
