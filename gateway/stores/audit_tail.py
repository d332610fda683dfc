"""The lines of a log as they come: of a file, over rotations, or of a stream in Redis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from gateway.stores.audit_redis import StreamLog
from gateway.stores.audit_rotation import former_files

_CHUNK = 1 << 20


class Tail(Protocol):
    """Lines to be read as they come. Every method may raise OSError."""

    @property
    def torn(self) -> bool:
        """Whether what was read last is a line without an end."""
        ...

    def read(self) -> Iterable[bytes]:
        """The lines, without their newlines, that are complete and were not read yet."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class StreamTail:
    """Reads a stream that is appended to meanwhile. ``last``: begin so many lines before the end; None is all.

    Raises:
        OSError: Redis is away or refuses.
        ValueError: the URL is not one of Redis.
    """

    torn = False

    def __init__(self, url: str, stream: str, *, last: int | None = None) -> None:
        self._log = StreamLog(url, stream)
        self._first: Iterable[bytes] | None = (
            (line[:-1] for line in self._log.lines()) if last is None else self._log.last(last)
        )

    def read(self) -> Iterator[bytes]:
        """See ``Tail``."""
        first, self._first = self._first, None
        yield from first if first is not None else self._log.coming()

    def close(self) -> None:
        """See ``Tail``."""
        self._log.close()


class FileTail:
    """Reads a log that is written meanwhile. A file that was renamed is read to its end before the new one.

    ``from_end``: begin about so many bytes before the end, at the beginning of a line; None is the beginning.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, *, from_end: int | None = None) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""
        size = os.fstat(self._file.fileno()).st_size
        if from_end is not None and size > from_end:
            self._file.seek(size - from_end)
            self._file.readline()

    @property
    def torn(self) -> bool:
        """Whether what was read last is a line without an end."""
        return bool(self._rest)

    def read(self) -> Iterator[bytes]:
        """The lines, without their newlines, that are complete and were not read yet.

        Raises:
            OSError: a file cannot be read any more.
        """
        yield from self._unread()
        while self._renamed():
            yield from self._unread()  # what was written before the rename and after the look
            self._rest = b""
            following = self._following()
            self._file.close()
            self._file = following.open("rb")
            yield from self._unread()
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # cut from outside
            yield from self._unread()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unread(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from lines

    def _renamed(self) -> bool:
        """Whether another file has the name now. Between a rename and the next record none has it."""
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _following(self) -> Path:
        """The file after ours: more than one rotation may have been done since."""
        own = os.fstat(self._file.fileno())
        files = [each for each in former_files(self._path) if each.suffix != ".gz"]
        for at, each in enumerate(files):
            if os.path.samestat(each.stat(), own):
                return [*files, self._path][at + 1]
        return self._path
