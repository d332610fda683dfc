"""Public names: the route's prefix and the backend's own name, within what clients accept."""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 64
"""Over 64 characters some clients lose their whole session (they pass names on to model APIs with that bound)."""

_ALLOWED = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def public_name(prefix: str, name: str) -> str:
    """``prefix`` + ``name``; over ``MAX_LENGTH`` shortened with a stable hash of the whole."""
    full = prefix + name
    if len(full) <= MAX_LENGTH:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    return f"{full[: MAX_LENGTH - 9]}_{digest}"


def is_valid(name: str) -> bool:
    """1-128 characters of ``A-Za-z0-9_.-`` (``server/tools``)."""
    return _ALLOWED.fullmatch(name) is not None
