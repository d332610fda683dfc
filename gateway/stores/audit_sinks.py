"""Where audit lines go. A sink owns its chain: it turns bodies into linked lines and writes all of them or none."""

from __future__ import annotations

import os
import secrets
import select
import socket
from collections.abc import Sequence
from typing import Protocol

from gateway.audit import START, Link
from gateway.settings import AuditSink, Settings
from gateway.stores.audit_files import FileSink
from gateway.stores.audit_redis import RedisSink
from gateway.stores.audit_rotation import Rotation

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


def open_sinks(settings: Settings, key: bytes) -> list[Sink]:
    """The sinks of ``GATEWAY_AUDIT``, each with a chain of its own. Nothing is opened yet."""
    return [_open_sink(sink, settings, key) for sink in settings.audit]


def _open_sink(sink: AuditSink, settings: Settings, key: bytes) -> Sink:
    if sink.kind == "redis":
        assert settings.redis_url is not None  # held by ``Settings.load``
        url = settings.redis_url.get_secret_value()
        return RedisSink(url, sink.stream, writer_id(), key, length=settings.audit_stream_length)
    if sink.path is not None:
        return FileSink(sink.path, writer_id(), key, rotation=_rotation(settings))
    return StreamSink("stdout", 1, writer_id())


def _rotation(settings: Settings) -> Rotation | None:
    bounds = settings.audit_max_bytes, settings.audit_max_age_seconds
    return Rotation(*bounds, settings.audit_keep) if bounds != (None, None) else None


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
