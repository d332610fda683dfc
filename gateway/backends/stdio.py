"""Messages over the standard streams of a child process: one JSON text a line (specification, ``basic/transports``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from gateway.backends.process import Process
from gateway.backends.wire import OUTBOX, Exchange, Streams
from gateway.models import Principal

logger = logging.getLogger(__name__)

_LAST_WORDS = 0.2
"""Seconds in which the output of a child that has ended is still read, and one that closed it may end."""


class Stdio:
    """Each session is a process of its own; implements ``wire.Transport``."""

    def __init__(
        self, route: str, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, max_response: int
    ) -> None:
        self._route = route
        self._command = tuple(command)
        self._env = dict(env)
        self._cwd = cwd
        self._max_response = max_response

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """See ``wire.Transport``. Leaving it ends the process and all it started."""
        process = await Process.start(
            self._route, self._command, env=self._env, cwd=self._cwd, max_line=self._max_response
        )
        to_backend, outgoing = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
        incoming, from_backend = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        gone = asyncio.Event()
        try:
            async with anyio.create_task_group() as carriers:
                streams = Streams(from_backend, to_backend, gone)
                carriers.start_soon(self._read, process, incoming, streams)
                carriers.start_soon(self._write, process, outgoing)
                yield streams
                carriers.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await process.stop()

    def on_behalf(self, principal: Principal) -> Stdio:
        """See ``wire.Transport``: a program is shown no token."""
        return self

    def begin(self, caller: Principal) -> Exchange:
        """See ``wire.Transport``."""
        return Exchange()

    def end(self, exchange: Exchange) -> None:
        """See ``wire.Transport``."""

    async def aclose(self) -> None:
        """There is nothing beside the sessions."""

    async def _read(
        self, process: Process, sink: MemoryObjectSendStream[SessionMessage | Exception], streams: Streams
    ) -> None:
        async with sink, anyio.create_task_group() as group:
            group.start_soon(self._after_exit, process, group.cancel_scope, streams)
            try:
                await self._read_lines(process, sink)
                await process.ended_within(_LAST_WORDS)
                streams.signals.reason = process.ending
            except ValueError:
                streams.signals.reason = f"it wrote a line of over {self._max_response} bytes"
                logger.warning("%s wrote a line of over %d bytes; its session ends", self._route, self._max_response)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                logger.debug("the session of %s has ended", self._route)
            streams.gone.set()
            group.cancel_scope.cancel()

    async def _read_lines(self, process: Process, sink: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        while line := await process.lines.readline():
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                if line.strip():
                    logger.debug("%s wrote a line of %d bytes that is not a message", self._route, len(line))
            else:
                await sink.send(SessionMessage(message))

    async def _after_exit(self, process: Process, reading: anyio.CancelScope, streams: Streams) -> None:
        # A process that was left behind may hold the output open for ever.
        await process.exited.wait()
        streams.gone.set()
        streams.signals.reason = process.ending
        logger.info("%s: %s", self._route, process.ending)
        await asyncio.sleep(_LAST_WORDS)
        reading.cancel()

    async def _write(self, process: Process, source: MemoryObjectReceiveStream[SessionMessage]) -> None:
        try:
            async with source:
                async for item in source:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await process.write(text.encode() + b"\n")
        except BrokenPipeError:
            logger.debug("the process of %s does not read any more", self._route)
