"""Request heads that a connection has sent before: what the same bytes say is not read again.

A client sends the same head with most of its calls, but for the length of the body. Nothing is believed here that the
parser has not said of these bytes on this connection, and what one connection has sent is known to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.framing import Head
from gateway.http.cycle import AT_ONCE

KEPT = 8
"""Heads of one connection; the oldest make way."""

NOTES = "gateway.notes"
"""The key of a scope with a dict for the application: the same one whenever this connection sends this head."""

BODY = "gateway.body"
"""The key of a scope with the whole body, where it came with the head; ``receive`` gives it too."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Heads:
    """The heads that one connection has sent, what each means, and which header has the length."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: list[tuple[Head, dict[str, Any], int]] = []

    def find(self, data: bytes) -> tuple[dict[str, Any], bytes, int] | None:
        """A new scope, what there is of the body, and how many bytes of it are still to come, where ``data`` begins
        with a known head and has nothing behind the body. Where the body is whole, the scope has its ``BODY``.
        """
        for head, known, at in self._known:
            found = head.begins(data)
            if found is not None:
                digits, body, owed = found
                scope = known.copy()
                headers = scope["headers"] = known["headers"].copy()
                headers[at] = (b"content-length", digits)
                if not owed:
                    scope[BODY] = body
                return scope, body, owed
        return None

    def keep(self, data: bytes, scope: Mapping[str, Any]) -> None:
        """Remember the head of ``data``, which the parser took for exactly one request with this scope."""
        framing = [at for at, (name, _) in enumerate(scope["headers"]) if name in _FRAMING]
        head = Head.of(data) if len(framing) == 1 else None
        if head is None:
            return
        if len(self._known) == KEPT:
            del self._known[0]
        kept = {**scope, "headers": [*scope["headers"]], NOTES: {}}
        kept.pop(AT_ONCE, None)  # of the request that is served now
        self._known.append((head, kept, framing[0]))
