"""Logs as they lie: which files are one log, in which order, and the judgement over them or over a stream."""

from __future__ import annotations

import errno
import fcntl
import glob
import gzip
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from gateway.audit import Report, Verifier, dump_heads
from gateway.audit.reading import read_record
from gateway.stores.audit_files import head_path, read_heads
from gateway.stores.audit_redis import StreamLog

_BESIDE = (".head", ".head.new")
_FIRST = 500  # lines
_LATER = "~"  # than every time, for files without a record
_ATTEMPTS = 10


class _Rotated(OSError):  # noqa: N818 - a state of the world
    """The newest file has another name than a moment ago."""


def log_files(arguments: Sequence[str]) -> list[Path]:
    """The files that are meant, the oldest first: files, patterns, or the folder of one log.

    What stands beside a log, as ``PATH.head``, is left out, so that a shell may expand ``audit.jsonl*``.

    Raises:
        OSError: a file cannot be read.
        ValueError: a pattern or a folder has no log, or a folder has several.
    """
    found = {path for argument in arguments for path in _expanded(argument) if not path.name.endswith(_BESIDE)}
    return [opening.path for opening in sorted(map(_opening, found))]


def _expanded(argument: str) -> Sequence[Path]:
    path = Path(argument)
    if path.is_dir():
        return _of_folder(path)
    if path.exists() or not glob.has_magic(argument):
        return [path]
    if matched := [Path(each) for each in glob.glob(argument)]:
        return matched
    raise ValueError(f"{argument}: no file has such a name")


def _of_folder(folder: Path) -> Sequence[Path]:
    logs = sorted(each.name.removesuffix(".head") for each in folder.glob("*.head"))
    if len(logs) != 1:
        several = f"{len(logs)} logs ({', '.join(logs[:5])})" if logs else "no log with a head beside it"
        raise ValueError(f"{folder}: has {several}; name the files of one")
    return [each for each in folder.iterdir() if each.is_file() and each.name.startswith(logs[0])]


@dataclass(frozen=True, slots=True)
class _Opening:
    """How a file begins: the time of its first record, and the first number of each writer in its first lines."""

    path: Path
    began: str
    numbers: Mapping[str, int]

    def __lt__(self, other: _Opening) -> bool:
        """Whether it was written before. Processes that share a log wait for each other, so times alone do not tell."""
        for writer, number in self.numbers.items():
            if writer in other.numbers and other.numbers[writer] != number:
                return number < other.numbers[writer]
        return (self.began, self.path.name) < (other.began, other.path.name)


def _opening(path: Path) -> _Opening:
    began, numbers = _LATER, dict[str, int]()
    with _open(path) as file:
        for line in islice(file, _FIRST):
            record = read_record(line)
            if record is not None:
                began = record.time if began is _LATER else began
                numbers.setdefault(record.writer, record.seq)
    return _Opening(path, began, numbers)


def judge(arguments: Sequence[str], keys: Sequence[bytes] = (), *, partial: bool = False) -> Report:
    """Judge the log that is meant by these, as ``verify``.

    Raises:
        OSError: a file cannot be read.
        ValueError: as ``log_files``.
    """
    for _ in range(_ATTEMPTS):
        with suppress(_Rotated, FileNotFoundError):  # between a rename and the next record the log has no such name
            return _verify(log_files(arguments), keys, partial, lambda: log_files(arguments))
    files = log_files(arguments)
    return _verify(files, keys, partial, lambda: files)


def verify(path: Path | Sequence[Path], key: bytes | Sequence[bytes] | None = None, *, partial: bool = False) -> Report:
    """Judge a log: one file, or all its files with the oldest first. It may be in use.

    ``key`` is the first of ``GATEWAY_KEYS``, or all that ever were first; without one the head's hashes are compared
    but not its signatures. ``partial``: earlier files were deleted on purpose. The head is that of the last file's log.

    Raises:
        OSError: a file cannot be read.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    keys = [key] if isinstance(key, bytes) else list(key or ())
    return _verify(paths, keys, partial, lambda: paths)


def _verify(paths: Sequence[Path], keys: Sequence[bytes], partial: bool, now: Callable[[], Sequence[Path]]) -> Report:
    """As of one moment: the newest file is locked, so nobody writes or rotates, and ``now`` has the same files."""
    with paths[-1].open("rb") as newest:
        fcntl.flock(newest, fcntl.LOCK_SH)
        found = os.fstat(newest.fileno())
        if not os.path.samestat(found, paths[-1].stat()) or now() != paths:
            raise _Rotated(errno.ESTALE, "it was rotated in this moment, ask again", str(paths[-1]))
        heads = read_heads(_log_of(paths[-1]))
        fcntl.flock(newest, fcntl.LOCK_UN)
        verifier = Verifier(heads, keys, partial=partial)
        for path in paths[:-1]:
            verifier.begin(str(path))
            with _open(path) as file:
                _feed(verifier, file)
        verifier.begin(str(paths[-1]))
        if paths[-1].suffix == ".gz":
            with gzip.open(newest) as unpacked:
                _feed(verifier, unpacked)
        else:
            _feed(verifier, newest, found.st_size)
    if keys and heads is None:
        verifier.problem("unknown head: there is no head file beside the log, so a cut end would not be seen")
    return verifier.report()


def _log_of(file: Path) -> Path:
    """The name under which the log of this file is written: it may have another one since it was rotated."""
    beside = [each.name.removesuffix(".head") for each in file.parent.glob("*.head")]
    return file.with_name(max((name for name in beside if file.name.startswith(name)), key=len, default=file.name))


def verify_stream(url: str, stream: str, keys: Sequence[bytes] = (), *, partial: bool = False) -> Report:
    """Judge the log in a stream of Redis, as ``verify`` does. ``partial``: it was trimmed.

    Raises:
        OSError: Redis is away or refuses.
        ValueError: the URL is not one of Redis.
    """
    log = StreamLog(url, stream)
    verifier = Verifier(log.heads, keys, partial=partial)
    verifier.begin(f"redis:{stream}")
    for line in log.lines():
        verifier.feed(line)
    if keys and log.heads is None:
        verifier.problem("unknown head: there is no head beside the stream, so a cut end would not be seen")
    return verifier.report()


def export(url: str, stream: str, path: Path) -> int:
    """Write the lines of a stream to a new file, byte for byte, and its heads beside it; how many lines they are.

    Raises:
        OSError: Redis is away or refuses, or the file is there already or cannot be written.
        ValueError: the URL is not one of Redis.
    """
    log = StreamLog(url, stream)
    count = 0
    with open(path, "xb", opener=_private) as file:
        for line in log.lines():
            file.write(line)
            count += 1
    with open(head_path(path), "xb", opener=_private) as file:
        file.write(dump_heads(log.heads or {}))
    return count


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _feed(verifier: Verifier, lines: Iterable[bytes], size: float = math.inf) -> None:
    read = 0
    for line in lines:
        if read >= size:
            return
        read += len(line)
        verifier.feed(line)
