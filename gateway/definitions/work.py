"""How much a schema can make a validator do, found out before it is used.

A value is judged by every schema that applies to it: through ``allOf`` and its like several times, through references
any number of times, and at each level of a value the number can multiply. ``Work.at_most(depth)`` bounds how often one
part of a value of this depth is judged, without judging anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from gateway.definitions.structure import IN_PLACE, Schema, members

MAX_SCHEMAS = 5_000
MAX_STEPS = 20_000
MAX_CHAIN = 400
MOST = 10**12
"""No bound is said beyond this."""

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_BUILT_IN = ("http://json-schema.org/", "https://json-schema.org/")
"""Schemas of schemas, which validators have with them."""

_NAMED_PARTS = frozenset({"properties", "prefixItems"})
_JUDGE_ITEMS = frozenset({"items", "contains", "additionalItems", "unevaluatedItems"})
_HERE = ""
_ANY_PROPERTY, _ANY_ITEM = "{}", "[]"

Profile = dict[str, int]
"""How often: the value itself under ``_HERE``, and each of its parts."""


class Unbounded(ValueError):  # noqa: N818 - a property of the schema
    """The schema is refused; ``str()`` says why, for operators."""


class Work:
    """The bound for one schema.

    Args:
        schema: the whole document; its references stay within it.
        cost: what one application of a schema counts besides those in it.

    ``schemas`` has every schema of the document that was come across so far.

    Raises:
        Unbounded: it is too large.
    """

    def __init__(self, schema: Schema, cost: Callable[[Schema], int] = lambda _schema: 1) -> None:
        self.schema = schema
        self._cost = cost
        self._known: dict[tuple[int, int], Profile] = {}
        self._under_way: set[tuple[int, int]] = set()
        self._bases: dict[int, str] = {}
        self._places: dict[str, Any] = {"": schema}
        self._steps = 0
        self.schemas: list[Schema] = []
        self._index(schema, "")

    def at_most(self, depth: int) -> int:
        """How often a part of a value of ``depth`` levels is judged at most.

        Raises:
            Unbounded: a reference leads out of the document, nowhere or back to the same value, or it is too intricate.
        """
        return _most(self._profile(self.schema, depth))

    def _index(self, schema: Schema, base: str) -> None:
        """Know each schema's base and each name that a reference may use (2020-12, 8.2)."""
        waiting = [(schema, base)]
        while waiting:
            current, base = waiting.pop()
            self.schemas.append(current)
            if len(self.schemas) > MAX_SCHEMAS:
                raise Unbounded(f"it has more than {MAX_SCHEMAS} schemas in it")
            if isinstance(own := current.get("$id"), str) and not own.startswith("#"):
                base = urldefrag(urljoin(base, own)).url
                self._places.setdefault(base, current)
            self._bases[id(current)] = base
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(current.get(key), str):
                    self._places.setdefault(f"{base}#{current[key]}", current)
            waiting += [(part, base) for _key, _name, part in members(current) if isinstance(part, dict)]

    def _profile(self, schema: Schema, depth: int) -> Profile:
        known = self._known.get(key := (id(schema), depth))
        if known is not None:
            return known
        if key in self._under_way:
            raise Unbounded("it refers to itself for the same value")
        self._steps += 1
        if self._steps > MAX_STEPS or len(self._under_way) > MAX_CHAIN:
            raise Unbounded("it is too intricate")
        self._under_way.add(key)
        profile: Profile = {_HERE: self._cost(schema)}
        for place, part in self._applied(schema):
            if place == _HERE:
                for name, count in self._profile(part, depth).items():
                    profile[name] = min(MOST, profile.get(name, 0) + count)
            elif depth > 0:
                profile[place] = min(MOST, profile.get(place, 0) + _most(self._profile(part, depth - 1)))
        self._under_way.remove(key)
        self._known[key] = profile
        return profile

    def _applied(self, schema: Schema) -> Iterator[tuple[str, Schema]]:
        """Each schema that this one applies, and to which part of the value."""
        for key, name, part in members(schema):
            if isinstance(part, dict) and (place := _place(key, name)) is not None:
                yield place, part
        for key in _REFERENCES:
            if isinstance(reference := schema.get(key), str):
                yield _HERE, self._target(reference, self._bases.get(id(schema), ""))

    def _target(self, reference: str, base: str) -> Schema:
        document, fragment = urldefrag(urljoin(base, reference) if base or not reference.startswith("#") else reference)
        if not fragment.startswith("/"):
            found = self._places.get(f"{document}#{unquote(fragment)}" if fragment else document)
        else:
            found = _pointed(self._places.get(document), unquote(fragment))
        if found is None and document.startswith(_BUILT_IN):
            return {}
        if not isinstance(found, dict | bool):
            raise Unbounded(f"it refers to {reference[:100]!a}, which is not in it")
        if isinstance(found, bool):
            return {}
        if id(found) not in self._bases:
            self._index(found, document)
        return found


def _place(key: str, name: str) -> str | None:
    if key in IN_PLACE or key in ("dependentSchemas", "dependencies"):
        return _HERE
    if key in ("$defs", "definitions", "contentSchema"):
        return None
    if key in _NAMED_PARTS or (key == "items" and name):
        return ("." if key == "properties" else "#") + name
    return _ANY_ITEM if key in _JUDGE_ITEMS else _ANY_PROPERTY


def _most(profile: Profile) -> int:
    """Of the value and all its parts."""
    properties, items = profile.get(_ANY_PROPERTY, 0), profile.get(_ANY_ITEM, 0)
    most = max(profile[_HERE], properties, items)
    for name, count in profile.items():
        if name[:1] == ".":
            most = max(most, count + properties)
        elif name[:1] == "#":
            most = max(most, count + items)
    return min(MOST, most)


def _pointed(document: Any, pointer: str) -> Any:
    """RFC 6901."""
    found = document
    for part in pointer[1:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
