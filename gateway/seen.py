"""URIs that a backend named in its results without listing them: reading one needs its owner.

Kept for each principal, because what one was told says nothing about another, and bounded both ways.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from gateway.models import JsonObject, Principal

MAX_PRINCIPALS = 1_000
MAX_URIS = 200
MAX_LENGTH = 2048
"""Characters of a URI that is remembered."""

_NAMING = {"tools/call": "content", "prompts/get": "messages", "resources/read": "contents"}
"""The member of a method's result that may name resources."""

_EMBEDDED = ("content", "resource")
"""Where it may be inside of a message or a block."""

_T = TypeVar("_T")
_parts = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


class SeenUris:
    """Remembers which route named a URI to whom."""

    def __init__(self) -> None:
        self._of: OrderedDict[tuple[str, str], OrderedDict[str, str]] = OrderedDict()

    def note(self, principal: Principal, route: str, method: str, result: JsonObject) -> list[str]:
        """Remember the URIs that the result of ``method`` names; return those that were not known."""
        part = result.get(_NAMING.get(method, ""))
        if part is None or (isinstance(part, msgspec.Raw) and b'"uri"' not in bytes(part)):
            return []
        return self.keep(principal.issuer, principal.subject, route, _uris(part))

    def keep(self, issuer: str, subject: str, route: str, uris: Iterable[str]) -> list[str]:
        """Remember ``uris`` for a principal; return those that were not known."""
        fresh: list[str] = []
        for uri in uris:
            known = self._of.setdefault((issuer, subject), OrderedDict())
            if known.get(uri) != route:
                fresh.append(uri)
            known[uri] = route
            known.move_to_end(uri)
            self._of.move_to_end((issuer, subject))
            if len(known) > MAX_URIS:
                known.popitem(last=False)
            if len(self._of) > MAX_PRINCIPALS:
                self._of.popitem(last=False)
        return fresh[-MAX_URIS:]

    def route_of(self, principal: Principal, uri: str) -> str | None:
        """The route that named this URI to this principal."""
        known = self._of.get((principal.issuer, principal.subject))
        return known.get(uri) if known else None


def _uris(part: Any) -> Iterator[str]:
    for block in _decoded(_parts, part, list) or ():
        holder = _decoded(_members, block, dict)
        for name in _EMBEDDED:  # a message has a block, a block may have a resource
            if holder is not None and name in holder:
                holder = _decoded(_members, holder[name], dict)
        uri = _decoded(_text, holder.get("uri"), str) if holder is not None else None
        if uri is not None and len(uri) <= MAX_LENGTH:
            yield uri


def _decoded(decoder: msgspec.json.Decoder[_T], value: Any, kind: type[_T]) -> _T | None:
    """A value, as bytes or not, if it is of that kind; of bytes no more is decoded than is looked at."""
    if isinstance(value, msgspec.Raw):
        try:
            return decoder.decode(value)
        except msgspec.MsgspecError:
            return None
    return value if isinstance(value, kind) else None
