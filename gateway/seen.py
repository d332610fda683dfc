"""URIs that a backend named in its results without listing them: reading one needs its owner.

Kept for each principal, because what one was told says nothing about another, and bounded both ways.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.models import JsonObject, Principal

MAX_PRINCIPALS = 1_000
MAX_URIS = 200


class SeenUris:
    """Remembers which route named a URI to whom."""

    def __init__(self) -> None:
        self._of: OrderedDict[tuple[str, str], OrderedDict[str, str]] = OrderedDict()

    def note(self, principal: Principal, route: str, result: JsonObject) -> None:
        """Remember the URIs of a result's content."""
        content = result.get("content")
        if isinstance(content, msgspec.Raw) and b'"uri"' not in bytes(content):
            return
        owner = (principal.issuer, principal.subject)
        for uri in _uris(content):
            known = self._of.setdefault(owner, OrderedDict())
            known[uri] = route
            known.move_to_end(uri)
            self._of.move_to_end(owner)
            if len(known) > MAX_URIS:
                known.popitem(last=False)
            if len(self._of) > MAX_PRINCIPALS:
                self._of.popitem(last=False)

    def route_of(self, principal: Principal, uri: str) -> str | None:
        """The route that named this URI to this principal."""
        known = self._of.get((principal.issuer, principal.subject))
        return known.get(uri) if known else None


def _uris(content: Any) -> Iterator[str]:
    if isinstance(content, msgspec.Raw):
        try:
            content = msgspec.json.decode(content)
        except msgspec.MsgspecError:  # a number that no double holds; the client gets it as it is
            return
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        holder = block.get("resource") if block.get("type") == "resource" else block
        uri = holder.get("uri") if isinstance(holder, dict) else None
        if isinstance(uri, str) and len(uri) <= 2048:
            yield uri
