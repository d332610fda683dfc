"""Durations (``30s``, ``250ms``) and sizes (``16MiB``): people write them, the code has seconds and bytes."""

from __future__ import annotations

import re

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")

LONGEST = 366 * 86_400.0
"""Seconds. Whatever is longer than a year is a mistake."""

LARGEST = 1 << 40
"""Bytes. Whatever is larger than a TiB is a mistake."""


def parse_duration(value: object) -> float:
    """Seconds.

    Raises:
        ValueError: with the message and a hint as its arguments.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration: a whole number and ms, s, m, h or d", _duration_hint(value))
    seconds = int(match[1]) * _MILLISECONDS[match[2]] / 1000
    if seconds > LONGEST:
        raise ValueError("is longer than a year", "check the unit")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest way to write it: the largest unit that is exact to the millisecond."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    unit = next(unit for unit, size in reversed(_MILLISECONDS.items()) if milliseconds % size == 0)
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


def parse_size(value: object) -> int:
    """Bytes, from a whole number of them or a text such as ``16MiB``.

    Raises:
        ValueError: with the message and a hint as its arguments.
    """
    size = value if isinstance(value, int) and not isinstance(value, bool) else _size_of(value)
    if size > LARGEST:
        raise ValueError("is larger than 1024GiB", "check the unit")
    return size


def format_size(size: int) -> str:
    """The shortest way to write it: the largest unit that is exact."""
    if size == 0:
        return "0B"
    unit = next(unit for unit, one in reversed(_BYTES.items()) if size % one == 0)
    return f"{size // _BYTES[unit]}{unit}"


def _size_of(value: object) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a size: bytes, or a whole number and KiB, MiB or GiB", "such as 16MiB")
    return int(match[1]) * _BYTES[match[2]]


def _duration_hint(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LONGEST:
        return f"give it a unit, such as {value}s"
    return "such as 30s, 10m, 250ms or 6h"
