"""The signed heads beside a log: how far each writer had come. Only they show that the end of a log was cut off."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

import msgspec

from gateway.audit.records import Link

HEADS_KEPT = 64
"""Writers in a head file; those that wrote longest ago leave it first."""


class HeadError(ValueError):
    """The head file is not one."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a writer when the head was written. ``closed``: the writer has ended and writes no more."""

    seq: int
    hash: str
    closed: bool
    mac: str


def _mac(key: bytes, link: Link, closed: bool) -> str:
    derived = hmac.digest(key, b"mcp-gateway audit head", "sha256")
    text = f"{link.writer}\n{link.seq}\n{link.hash}\n{closed}".encode()
    return hmac.digest(derived, text, "sha256").hex()


def sign(key: bytes, link: Link, *, closed: bool) -> Head:
    """HMAC-SHA256 under a key derived from ``key``."""
    return Head(link.seq, link.hash, closed, _mac(key, link, closed))


def signed(keys: Sequence[bytes], writer: str, head: Head) -> bool:
    """Whether one of ``keys`` made this head for this writer."""
    link = Link(writer, head.seq, head.hash)
    return any(hmac.compare_digest(_mac(key, link, head.closed).encode(), head.mac.encode()) for key in keys)


def parse_heads(text: bytes) -> dict[str, Head]:
    """Read a head file; the writer that wrote last is last.

    Raises:
        HeadError: it is not a JSON object of heads.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Head])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HeadError(str(error)) from None


def render_heads(heads: Mapping[str, Head], writer: str, head: Head) -> bytes:
    """The head file with ``head`` as the last entry, bounded to ``HEADS_KEPT``."""
    others = [(name, value) for name, value in heads.items() if name != writer]
    return dump_heads(dict([*others, (writer, head)][-HEADS_KEPT:]))


def dump_heads(heads: Mapping[str, Head]) -> bytes:
    """A head file as it is."""
    return msgspec.json.encode(heads) + b"\n"
