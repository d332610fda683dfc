"""The audit file and the signed heads beside it.

Rules of this file: everything is done under an exclusive ``flock`` on the log itself, so that several processes may
share it; a batch is in the file with its last newline or not at all; the head never runs ahead of the file.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.audit import (
    START,
    Head,
    HeadError,
    Link,
    line_hash,
    parse_heads,
    render_heads,
    sign,
)
from gateway.stores.audit_rotation import Rotation, began_at, former_files

HEAD_INTERVAL = 0.1
"""Seconds between two writings of the head. A tail cut off after a crash within it is not found."""
ROTATION_RETRY = 60.0
"""Seconds after which a rotation that failed is tried again."""
_TAIL = 64 * 1024
_FIRST = 4096

_log = logging.getLogger(__name__)


def head_path(path: Path) -> Path:
    """Where the heads of a log are."""
    return path.with_name(path.name + ".head")


class FileSink:
    """Appends to a file. It may be renamed at any time: the next batch makes a new one and its chain goes on.

    ``clock`` is monotonic, ``now`` is in seconds since the epoch.
    """

    name = "file"

    def __init__(
        self,
        path: Path,
        writer: str,
        key: bytes,
        *,
        rotation: Rotation | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._name = str(path)
        self._key = key
        self._rotation = rotation
        self._rotates_from = -math.inf
        self._began: float | None = None
        self._clock = clock
        self._now = now
        self._descriptor: int | None = None
        self._end = -1
        self._link = Link(writer, 0, START)
        self._head: Head | None = None
        self._head_at = 0.0

    def write(self, bodies: Sequence[bytes], *, sync: bool) -> None:
        """See ``Sink``."""
        if bodies and self._rotation is not None:
            self._rotate(self._rotation, sync)
        with self._locked(sync) as (descriptor, found):
            if found < self._end:
                _log.error("the audit file was cut from outside: audit verify will report what is missing")
            # What ends where we left it has whole lines: nobody has written since.
            size = found if found == self._end else _drop_torn_tail(descriptor, found)
            if self._head is None or (bodies and self._link.seq == 0):
                self._start(descriptor, size)
            text, link = self._link.extend(bodies)
            _append(descriptor, text, size, sync)
            self._link, self._end = link, size + len(text)
            if self._clock() - self._head_at >= HEAD_INTERVAL:
                self._keep_head(sync)

    def settle(self) -> None:
        """See ``Sink``: the head is written where it lags."""
        if self._head is not None and self._head.seq != self._link.seq:
            with self._locked(sync=False):
                self._keep_head(sync=False)

    def close(self) -> None:
        """See ``Sink``: the head says that this writer has ended."""
        if self._head is not None:
            with self._locked(sync=False):
                self._write_head(sign(self._key, self._link, closed=True), sync=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _rotate(self, rotation: Rotation, sync: bool) -> None:
        """Where it is due, rename the file; whoever writes next makes a new one. What fails is tried again later."""
        if self._clock() < self._rotates_from:
            return
        with self._locked(sync) as (descriptor, size):
            if size and self._began is None:
                self._began = began_at(os.pread(descriptor, _FIRST, 0))
            if not rotation.due(size, self._began, self._now()):
                return
            try:
                rotation.rotate(self._path, self._now())
            except OSError as error:
                self._rotates_from = self._clock() + ROTATION_RETRY
                _log.warning("the audit file cannot be rotated and grows on: %s", error.strerror)

    @contextmanager
    def _locked(self, sync: bool) -> Iterator[tuple[int, int]]:
        descriptor, size = self._current(sync)
        try:
            yield descriptor, size
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _current(self, sync: bool) -> tuple[int, int]:
        """The locked file that has our name now, and its size."""
        while True:
            if self._descriptor is None:
                self._descriptor = _open(self._path, sync)
                self._file, self._end, self._began = os.fstat(self._descriptor), -1, None
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                found = os.stat(self._name)
                if os.path.samestat(found, self._file):
                    return self._descriptor, found.st_size
            os.close(self._descriptor)
            self._descriptor = None

    def _start(self, descriptor: int, size: int) -> None:
        """Link to what is there already, and enter the head before the first record: no record is without one.

        Done when the file is opened, to find out whether it can be written, and for the first record again: others
        may have written since.
        """
        last = _last_line(descriptor, size) if size else _last_of_former(self._path)
        heads = read_heads(self._path) or {}
        former = next(reversed(heads.values())).hash if heads else START
        self._link = self._link._replace(hash=line_hash(last) if last is not None else former)
        self._write_head(sign(self._key, self._link, closed=False), sync=False)

    def _keep_head(self, sync: bool) -> None:
        with suppress(OSError):  # the records are written; the head is tried again after the next batch
            self._write_head(sign(self._key, self._link, closed=False), sync=sync)

    def _write_head(self, head: Head, *, sync: bool) -> None:
        text = render_heads(read_heads(self._path) or {}, self._link.writer, head)
        target = head_path(self._path)
        draft = target.with_name(target.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, text)
            if sync:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(target)
        self._head, self._head_at = head, self._clock()


def _open(path: Path, sync: bool) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return descriptor


def _append(descriptor: int, text: bytes, size: int, sync: bool) -> None:
    try:
        _write_all(descriptor, text)
        if sync and text:
            os.fdatasync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


def _drop_torn_tail(descriptor: int, size: int) -> int:
    """Take away a last line without an end, of a writer that was killed in it: nobody was told that it is written."""
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    whole = _line_start(descriptor, size)
    os.ftruncate(descriptor, whole)
    return whole


def _line_start(descriptor: int, end: int) -> int:
    """Where the line begins that reaches to ``end``."""
    while end > 0:
        start = max(0, end - _TAIL)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _last_line(descriptor: int, size: int) -> bytes | None:
    if size == 0:
        return None
    start = _line_start(descriptor, size - 1)
    return os.pread(descriptor, size - 1 - start, start)


def _last_of_former(path: Path) -> bytes | None:
    """The last line of the file that was rotated last: the heads may lag behind it."""
    former = [each for each in former_files(path) if each.suffix != ".gz"][-1:]
    if not former:
        return None
    with suppress(OSError), former[0].open("rb") as file:
        return _last_line(file.fileno(), os.fstat(file.fileno()).st_size)
    return None


def read_heads(path: Path) -> dict[str, Head] | None:
    """The heads beside a log: None without a file, none from a broken one (verification then misses the writers)."""
    try:
        return parse_heads(head_path(path).read_bytes())
    except FileNotFoundError:
        return None
    except HeadError:
        return {}
