"""Why a backend could not be had, in a few words for the operator's log; never a URL, a credential or an argument."""

from __future__ import annotations

import os
import socket
from typing import TypeVar

from gateway.backends.http1_connection import HttpError
from gateway.errors import BackendUnavailable

_F = TypeVar("_F", bound=BackendUnavailable)
_MAX = 200


def because(failure: _F, reason: str) -> _F:
    """The failure with its reason, where there is one; clients are never told."""
    if reason:
        failure.add_note(reason)
    return failure


def cause_of(failure: BaseException) -> str:
    """The reason that is nearest to the root: a note, or what the network or the operating system said."""
    found = type(failure).__name__
    seen: BaseException | None = failure
    for _ in range(8):
        if seen is None:
            break
        found = _said(seen) or found
        if isinstance(seen, HttpError):  # it has judged what is below it
            break
        seen = seen.__cause__ or seen.__context__
    return found[:_MAX]


def _said(error: BaseException) -> str:
    notes = getattr(error, "__notes__", ())
    if notes:
        return str(notes[0])
    if isinstance(error, HttpError):
        return error.reason
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"not found: {os.path.basename(os.fsdecode(error.filename))}"
    if isinstance(error, socket.gaierror):
        return "name not found"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()  # its own words may name the address
    return ""
