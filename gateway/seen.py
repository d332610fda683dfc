"""URIs that a backend named in its results without listing them: reading one needs its owner.

Kept for each principal, because what one was told says nothing about another, and bounded both ways.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.models import JsonObject

MAX_PRINCIPALS = 1_000
MAX_URIS = 200


class SeenUris:
    """Remembers which route named a URI to whom. ``owner`` is a principal's short name."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, OrderedDict[str, str]] = OrderedDict()

    def note(self, owner: str, route: str, result: JsonObject) -> None:
        """Remember the URIs of a result's content."""
        for uri in _uris(result.get("content")):
            known = self._of.setdefault(owner, OrderedDict())
            known[uri] = route
            known.move_to_end(uri)
            self._of.move_to_end(owner)
            if len(known) > MAX_URIS:
                known.popitem(last=False)
            if len(self._of) > MAX_PRINCIPALS:
                self._of.popitem(last=False)

    def route_of(self, owner: str, uri: str) -> str | None:
        """The route that named this URI to this principal."""
        known = self._of.get(owner)
        return known.get(uri) if known else None


def _uris(content: Any) -> Iterator[str]:
    if isinstance(content, msgspec.Raw):
        if b'"uri"' not in memoryview(content).tobytes():
            return
        content = msgspec.json.decode(content)
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        holder = block.get("resource") if block.get("type") == "resource" else block
        uri = holder.get("uri") if isinstance(holder, dict) else None
        if isinstance(uri, str) and len(uri) <= 2048:
            yield uri
