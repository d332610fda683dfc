"""Where audit lines go. A sink owns its chain: it turns bodies into linked lines and writes all of them or none."""

from __future__ import annotations

import os
import secrets
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from gateway.audit import START, Link
from gateway.stores.audit_files import FileSink

_PIPE_BUF = 4096


class Sink(Protocol):
    """Used by one thread. Every method may block and may raise OSError."""

    @property
    def name(self) -> str:
        """The label in metrics and logs."""
        ...

    def write(self, bodies: Sequence[bytes], *, sync: bool) -> None:
        """Append the records and, with ``sync``, make them survive a power loss. After an error none of them counts."""
        ...

    def settle(self) -> None:
        """There was nothing to write for a while: bring up to date what need not be so after every batch."""
        ...

    def close(self) -> None:
        """The last record was written."""
        ...


def writer_id() -> str:
    """Unique for this process: host, process id, random."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def open_sinks(specification: str, key: bytes) -> list[Sink]:
    """Sinks from ``file:PATH`` and ``stdout``, several with commas. Nothing is opened yet.

    Raises:
        ValueError: an unknown kind of sink, or none at all.
    """
    parts = [part.strip() for part in specification.split(",") if part.strip()]
    if not parts:
        raise ValueError("no audit sink: give file:PATH or stdout")
    return [_open_sink(part, key) for part in parts]


def _open_sink(specification: str, key: bytes) -> Sink:
    kind, _, path = specification.partition(":")
    if kind == "file" and path:
        return FileSink(Path(path), writer_id(), key)
    if specification == "stdout":
        return StreamSink("stdout", 1, writer_id())
    raise ValueError(f"unknown audit sink {specification!r}: give file:PATH or stdout")


class StreamSink:
    """Lines to a descriptor that only goes forward. Several processes may share it where lines stay under 4 KiB."""

    def __init__(self, name: str, descriptor: int, writer: str) -> None:
        self.name = name
        self._descriptor = descriptor
        self._link = Link(writer, 0, START)
        self._sent = 0

    def write(self, bodies: Sequence[bytes], *, sync: bool) -> None:
        """See ``Sink``. ``sync`` has no meaning here."""
        text, link = self._link.extend(bodies)
        # A failed write cannot be undone. Its retry begins with the same bytes, so it goes on where it stopped.
        while self._sent < len(text):
            self._sent += self._send(_portion(text, self._sent))
        self._sent, self._link = 0, link

    def _send(self, portion: bytes) -> int:
        try:
            return os.write(self._descriptor, portion)
        except BlockingIOError:  # whoever shares the descriptor made it non-blocking
            select.select([], [self._descriptor], [])
            return 0

    def settle(self) -> None:
        """See ``Sink``."""

    def close(self) -> None:
        """See ``Sink``. The descriptor belongs to the process."""


def _portion(text: bytes, start: int) -> bytes:
    """Whole lines up to what a pipe takes in one piece, at least one."""
    end = text.rfind(b"\n", start, start + _PIPE_BUF) + 1
    return text[start : end or text.index(b"\n", start) + 1]
