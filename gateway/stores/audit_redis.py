"""The audit in a Redis stream: a sink that many replicas share, and how the stream is verified.

Each entry has one field, ``line``. The signed heads are in a hash beside the stream and are replaced in the step that
appends their lines, so no record is without one. An attempt whose answer got lost is repeated and changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

import msgspec
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from gateway.audit import HEADS_KEPT, START, Head, HeadError, Link, line_hash, parse_heads, sign
from gateway.stores.redis_place import blocking_client

BATCH = 500
"""Lines of one step; Redis serves nobody else meanwhile."""
PAGE = 1000
_CONNECT, _ANSWER = 1.0, 2.0  # seconds
_SYNC_MILLISECONDS = 1000
_ATTEMPTS = 20
_NOTHING = "0-0"
_SCRIPT = files("gateway.stores").joinpath("audit.lua").read_bytes()


class _Moved(Exception):  # noqa: N818 - not an error: somebody else was first
    """The stream does not end any more where the first record was to link to."""


Entry = tuple[bytes, Mapping[bytes, bytes]]


def connect(url: str) -> Any:
    """A connection of its own, used by one thread. It never repeats a command by itself.

    Raises:
        ValueError: the URL is not one of Redis.
    """
    return blocking_client(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT,
        socket_timeout=_ANSWER,
    )


def heads_key(stream: str) -> str:
    """The hash of the heads: in the same cluster slot as its stream."""
    return f"{stream}:head" if "{" in stream else f"{{{stream}}}:head"


class RedisSink:
    """Appends to a stream. Several processes may share it.

    ``length`` is about how many records the stream keeps; None keeps all.
    """

    name = "redis"

    def __init__(self, url: str, stream: str, writer: str, key: bytes, *, length: int | None = None) -> None:
        self._redis = connect(url)
        self._script = self._redis.register_script(_SCRIPT)
        self._keys = [stream, heads_key(stream)]
        self._key = key
        self._length = length or 0
        self._link = Link(writer, 0, START)
        self._beginnings: list[Link] = []

    def write(self, bodies: Sequence[bytes], *, sync: bool) -> None:
        """See ``Sink``. ``sync`` waits for the append-only file of Redis to be synced (``WAITAOF``)."""
        for _ in range(_ATTEMPTS):
            with suppress(_Moved), _as_os_errors():
                self._write(bodies, sync=sync)
                return
        raise OSError(errno.EBUSY, "Redis: others append faster than this writer can begin")

    def _write(self, bodies: Sequence[bytes], *, sync: bool) -> None:
        link, expected = self._beginning(bodies) if self._link.seq == 0 else (self._link, "")
        for start in range(0, max(1, len(bodies)), BATCH):
            link = self._append(link, bodies[start : start + BATCH], expected)
            expected = ""
        if sync and bodies:
            self._sync()
        self._link = link

    def settle(self) -> None:
        """See ``Sink``: the head never lags."""

    def close(self) -> None:
        """See ``Sink``: the head says that this writer has ended."""
        try:
            with _as_os_errors():
                self._step(self._link, sign(self._key, self._link, closed=True), "", [])
        finally:
            self._redis.close()

    def _append(self, start: Link, bodies: Sequence[bytes], expected: str) -> Link:
        text, end = start.extend(bodies)
        self._step(start, sign(self._key, end, closed=False), expected, text.splitlines())
        return end

    def _step(self, before: Link, head: Head, expected: str, lines: Sequence[bytes]) -> None:
        arguments = [before.writer, before.seq, msgspec.json.encode(head), expected, self._length, *lines]
        if self._script(self._keys, arguments) != b"written":
            raise _Moved

    def _beginning(self, bodies: Sequence[bytes]) -> tuple[Link, str]:
        """Where the first record links to, and the id that must still be the last when it is appended."""
        last = self._redis.xrevrange(self._keys[0], count=1)
        heads = _by_age(self._redis.hgetall(self._keys[1]))
        self._forget(heads)
        own = heads.get(self._link.writer)
        if own is not None and own.seq:
            return self._begun(bodies, own), ""
        former = next((head.hash for head in reversed(heads.values()) if head.seq), START)
        beginning = self._link._replace(hash=line_hash(_line_of(last[0])) if last else former)
        if beginning not in self._beginnings:
            self._beginnings.append(beginning)
        return beginning, last[0][0].decode() if last else _NOTHING

    def _begun(self, bodies: Sequence[bytes], own: Head) -> Link:
        """Where an attempt began that was appended and whose answer got lost."""
        for beginning in self._beginnings:
            if beginning.extend(bodies[: own.seq])[1].hash == own.hash:
                return beginning
        raise OSError(errno.EEXIST, "Redis: somebody else writes under the name of this writer")

    def _forget(self, heads: Mapping[str, Head]) -> None:
        forgotten = [writer for writer in list(heads)[:-HEADS_KEPT] if writer != self._link.writer]
        if forgotten:
            self._redis.hdel(self._keys[1], *forgotten)

    def _sync(self) -> None:
        synced = self._redis.execute_command("WAITAOF", 1, 0, _SYNC_MILLISECONDS)
        if synced[0] < 1:
            raise OSError(errno.ETIMEDOUT, "Redis: the append-only file was not synced in time")


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        # The words of its subclasses may hold addresses; those of the plain one say what is wrong with the server.
        said = str(error) if type(error) is ResponseError else type(error).__name__
        raise OSError(errno.EIO, f"Redis: {said[:200]}") from None
    except RedisError as error:
        raise OSError(errno.EIO, f"Redis: {type(error).__name__}") from None


def _line_of(entry: Entry) -> bytes:
    return entry[1].get(b"line", b"")


def _by_age(stored: Mapping[bytes, bytes]) -> dict[str, Head]:
    """The heads, the writer that wrote last at the end. One that cannot be read is left out: verification misses it."""
    found: list[tuple[tuple[int, int], str, Head]] = []
    for writer, value in stored.items():
        entry_id, _, head = value.partition(b" ")
        milliseconds, _, number = entry_id.partition(b"-")
        try:
            (parsed,) = parse_heads(b'{"":%b}' % head).values()
            found.append(((int(milliseconds), int(number)), writer.decode(errors="replace"), parsed))
        except (HeadError, ValueError):
            continue
    return {writer: head for _, writer, head in sorted(found, key=lambda each: each[:2])}


class StreamLog:
    """A stream as it is now, to be read: everything up to its present end, with the heads of that moment.

    Raises:
        OSError: Redis is away or refuses.
    """

    def __init__(self, url: str, stream: str) -> None:
        self._redis = connect(url)
        self._stream = stream
        with _as_os_errors():
            moment = self._redis.pipeline(transaction=True)
            moment.xrevrange(stream, count=1)
            moment.hgetall(heads_key(stream))
            last, stored = moment.execute()
        self.heads = _by_age(stored) if stored else None
        self._end = last[0][0].decode() if last else ""

    def lines(self) -> Iterator[bytes]:
        """Every line with its newline, the oldest first."""
        for _, line in self._after("", self._end):
            yield line + b"\n"

    def last(self, count: int) -> list[bytes]:
        """The last lines, without their newlines."""
        if not (count and self._end):
            return []
        with _as_os_errors():
            found = self._redis.xrevrange(self._stream, self._end, count=count)
        return [_line_of(entry) for entry in reversed(found)]

    def coming(self) -> Iterator[bytes]:
        """The lines that were appended since the end was looked at, without their newlines."""
        for entry_id, line in self._after(self._end, "+"):
            self._end = entry_id
            yield line

    def _after(self, entry_id: str, end: str) -> Iterator[tuple[str, bytes]]:
        page: list[Entry] = []
        while end and (not page or len(page) == PAGE):
            with _as_os_errors():
                page = self._redis.xrange(self._stream, f"({entry_id}" if entry_id else "-", end, count=PAGE)
            if not page:
                return
            for each in page:
                entry_id = each[0].decode()
                yield entry_id, _line_of(each)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
