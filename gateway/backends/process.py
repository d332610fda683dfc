"""A child process that speaks MCP over its standard streams, in a process group of its own.

It is ended as a group: standard input is closed, then SIGTERM, then SIGKILL. Should the gateway itself be killed, a
watchdog, a tiny process that waits for the end of a pipe from the gateway, ends the group: a parent-death signal
would reach the child alone and not what it started (``npx``, ``uvx``), and needs code between fork and exec.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

logger = logging.getLogger(__name__)

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "SYSTEMROOT")
"""All that a child sees of our environment: our secrets are in the rest."""

_LINE = 8 * 1024
"""Bytes of a line of standard error that are logged."""

_WATCHDOG = """\
import os, signal, sys, time
if not os.read(0, 1):
    for number, pause in ((signal.SIGTERM, 1), (signal.SIGKILL, 0)):
        try:
            os.killpg(int(sys.argv[1]), number)
        except OSError:
            break
        time.sleep(pause)
"""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a child gets: the harmless part of ours, and what its route says.

    Programs installed beside the gateway's Python are found without activating its environment.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    inherited["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), inherited.get("PATH", os.defpath)])
    return {**inherited, **extra}


class Process(asyncio.SubprocessProtocol):
    """A running child. ``lines`` are those of its standard output; ``exited`` is set when it has ended.

    ``max_line`` bounds a line in bytes; a longer one raises ``ValueError`` where it is read.
    """

    def __init__(self, route: str, max_line: int) -> None:
        self.exited = asyncio.Event()
        self.lines = asyncio.StreamReader(limit=max_line)
        self._route = route
        self._complaints = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.SubprocessTransport | None = None
        self._watchdog: _Watchdog | None = None

    @classmethod
    async def start(
        cls, route: str, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, max_line: int
    ) -> Process:
        """Start ``command`` and its watchdog.

        Raises:
            OSError: there is no such program, or it may not be started.
            ValueError: a NUL byte in the command.
        """
        loop = asyncio.get_running_loop()
        process = cls(route, max_line)
        try:
            process._transport, _ = await loop.subprocess_exec(
                lambda: process, *command, env=environment(env), cwd=cwd, start_new_session=True
            )
        except FileNotFoundError as error:  # that of uvloop does not say what
            error.filename = _missing(command[0], cwd)
            raise
        try:
            process._watchdog = await _Watchdog.over(process.pid)
        finally:
            if process._watchdog is None:
                await process.stop()
        return process

    @property
    def pid(self) -> int:
        """Of the child, which is its group's too."""
        assert self._transport is not None
        return self._transport.get_pid()

    @property
    def ending(self) -> str:
        """Why nothing more comes from the child."""
        assert self._transport is not None
        code = self._transport.get_returncode()
        if code is None:
            return "it closed its output"
        return f"its process has ended ({f'exit status {code}' if code >= 0 else f'signal {-code}'})"

    async def write(self, data: bytes) -> None:
        """Write to standard input; waits while the child does not read.

        Raises:
            BrokenPipeError: it has ended or closed its input.
        """
        await self._writable.wait()
        pipe = _input(self._transport)
        if pipe is None or pipe.is_closing() or self.exited.is_set():
            raise BrokenPipeError
        pipe.write(data)

    async def stop(self, seconds: float = 2.0) -> None:
        """End the whole group within about ``seconds``, and reap it. Idempotent; cancelling it only hurries it."""
        assert self._transport is not None
        try:
            if (pipe := _input(self._transport)) is not None:
                pipe.close()
            if not await self.ended_within(seconds / 2):
                self._signal(signal.SIGTERM)
                await self.ended_within(seconds / 2)
        finally:
            self._signal(signal.SIGKILL)
            if self._watchdog is not None:
                self._watchdog.dismiss()
        await self.ended_within(1.0)
        self._transport.close()
        if self._watchdog is not None:
            await self._watchdog.gone()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader as long as it has a member, so its id is not another's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def ended_within(self, seconds: float) -> bool:
        """Wait so long for the child to end; whether it has."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), seconds)
        return self.exited.is_set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The child runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        pipe = self._transport.get_pipe_transport(1)
        if pipe is not None:
            self.lines.set_transport(pipe)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Standard output to whoever reads ``lines``, standard error to the log."""
        if fd == 1:
            self.lines.feed_data(data)
        elif logger.isEnabledFor(logging.DEBUG):
            self._complain(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The child has closed a stream."""
        if fd == 1:
            self.lines.feed_eof()
        self._writable.set()

    def process_exited(self) -> None:
        """The child has ended; others of its group may hold its streams open."""
        self._writable.set()
        self.exited.set()

    def pause_writing(self) -> None:
        """The child does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()

    def _complain(self, data: bytes) -> None:
        self._complaints += data
        *lines, rest = self._complaints.split(b"\n")
        self._complaints = rest[-_LINE:]
        for line in lines:
            logger.debug("%s says: %s", self._route, line[:_LINE].decode(errors="replace"))


class _Watchdog(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self._exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @classmethod
    async def over(cls, group: int) -> _Watchdog:
        watchdog = cls()
        await asyncio.get_running_loop().subprocess_exec(
            lambda: watchdog,
            *(sys.executable, "-I", "-S", "-c", _WATCHDOG, str(group)),
            env={},
            stdout=None,
            stderr=None,
            start_new_session=True,
        )
        return watchdog

    def dismiss(self) -> None:
        """Its group is gone: it ends without a deed."""
        pipe = _input(self._transport)
        if pipe is not None and not pipe.is_closing():
            pipe.write(b".")
            pipe.close()

    async def gone(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), 1.0)
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def process_exited(self) -> None:
        self._exited.set()


def _missing(program: str, cwd: str | None) -> str:
    return program if cwd is None or os.path.isdir(cwd) else cwd


def _input(transport: asyncio.SubprocessTransport | None) -> asyncio.WriteTransport | None:
    # uvloop's transports are none by their class.
    pipe = transport.get_pipe_transport(0) if transport is not None else None
    return cast("asyncio.WriteTransport | None", pipe)
