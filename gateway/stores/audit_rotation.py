"""When a log goes on in a new file, what the former one is called then, and how many of those are kept."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_FIRST_TIME = re.compile(rb'"time":"([0-9T:.-]+Z)"')


@dataclass(frozen=True, slots=True)
class Rotation:
    """A file is full once it has ``max_bytes``, and old once its first record is ``max_age`` seconds old.

    ``keep`` former files stay, the oldest go. None is no bound.
    """

    max_bytes: int | None = None
    max_age: float | None = None
    keep: int | None = None

    def due(self, size: int, began: float | None, now: float) -> bool:
        """Whether the next record belongs into a new file. ``began`` and ``now`` are in seconds since the epoch."""
        full = self.max_bytes is not None and size >= self.max_bytes
        old = self.max_age is not None and began is not None and now - began >= self.max_age
        return size > 0 and (full or old)

    def rotate(self, path: Path, now: float) -> None:
        """Rename the log after the present time and delete what is over ``keep``. Done under the log's lock.

        Raises:
            OSError: it cannot be renamed.
        """
        former = former_files(path)
        target = _named(path, datetime.fromtimestamp(now, UTC))
        if former and former[-1].name.removesuffix(".gz") >= target.name:  # the clock stood still, or went back
            target = _named(path, _moment_of(path, former[-1]) + timedelta(microseconds=1))
        path.rename(target)
        if self.keep is not None:
            for old in former_files(path)[: -self.keep]:
                with suppress(OSError):  # the next rotation tries again
                    old.unlink()


def former_files(path: Path) -> list[Path]:
    """The rotated files of a log, also when they were compressed since; the oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.\d{8}T\d{6}\.\d{6}Z(\.gz)?")
    return sorted(each for each in path.parent.iterdir() if pattern.fullmatch(each.name))


def began_at(first: bytes) -> float | None:
    """The time of a file's first record, from the beginning of the file; None where there is none to be read."""
    found = _FIRST_TIME.search(first.partition(b"\n")[0])
    if found is None:
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(found[1].decode()).timestamp()
    return None


def _named(path: Path, moment: datetime) -> Path:
    return path.with_name(f"{path.name}.{moment:%Y%m%dT%H%M%S.%f}Z")


def _moment_of(path: Path, former: Path) -> datetime:
    text = former.name.removesuffix(".gz")[len(path.name) + 1 :]
    return datetime.strptime(text, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
