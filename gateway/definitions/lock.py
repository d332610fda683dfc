"""``tools.lock``: definitions as somebody approved them, and how what a backend lists differs from them.

A pin is the whole definition, as the backend sent it, and its SHA-256; members in another order are the same
definition. The file is JSON, made to be reviewed as a difference: sorted, one value a line, a description line by
line, hidden characters as escapes. Nobody edits it by hand: a text that is not the one of its hash is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gateway.definitions.hidden import escaped
from gateway.models import Kind

FILE_NAME = "tools.lock"
MAX_BYTES = 16 << 20

SECTIONS: Mapping[Kind, str] = {
    "tool": "tools",
    "prompt": "prompts",
    "resource": "resources",
    "template": "templates",
}
"""What each kind is called in the file, in ``pins:`` and behind ``lock --only``."""

NAMED_BY: Mapping[Kind, str] = {"tool": "name", "prompt": "name", "resource": "uri", "template": "uriTemplate"}
"""The member of a definition that tells it from others of its kind."""

Definition = Mapping[str, Any]
Change = Literal["new", "changed"]


class Unreadable(ValueError):  # noqa: N818 - a property of the text
    """The text is no lock; ``str()`` says what is wrong and ``where`` is the place in it."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what)
        self.where = where


class Pin(NamedTuple):
    """An approved definition and its hash."""

    sha256: str
    definition: Definition


Pins = Mapping[Kind, Mapping[str, Pin]]
"""Of one route: for each kind, by backend name or URI."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The pins by route. ``missing``: there is no file."""

    pins: Mapping[str, Pins]
    missing: bool = False


NO_LOCK = Lock({}, missing=True)


@dataclass(frozen=True, slots=True)
class Drift:
    """An entry whose definition is not the pinned one.

    ``fields`` are the members that differ, none where it is new. ``withheld``: it is quarantined; otherwise the route
    only warns. ``name`` is the public name, ``pinned`` and ``found`` are hashes.
    """

    route: str
    kind: Kind
    backend_name: str
    name: str
    change: Change
    fields: tuple[str, ...]
    pinned: str | None
    found: str
    withheld: bool

    def __str__(self) -> str:
        return f"{', '.join(self.fields)} changed" if self.fields else "it is not in the lock"


def rule_of(route: str, name: str, kind: Kind = "tool") -> str:
    """What the audit names as the rule where a pin decided."""
    return f"{FILE_NAME}:{place_of(route, name, kind)}"


def place_of(route: str, name: str, kind: Kind) -> str:
    """Where a pin is, as ``lock --only`` takes it: ``route/tool``, or ``route/prompts/prompt`` and so on."""
    return f"{route}/{name}" if kind == "tool" else f"{route}/{SECTIONS[kind]}/{name}"


def pin(definition: Definition) -> Pin:
    """Approve a definition."""
    return Pin(digest(definition), definition)


def digest(definition: Definition) -> str:
    """SHA-256 of the definition with its members sorted, as hexadecimal."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def differing(pinned: Definition, found: Definition) -> tuple[str, ...]:
    """The members that are not the same in both."""
    keys = sorted({*pinned, *found})
    return tuple(key for key in keys if _alone(pinned, key) != _alone(found, key))


def _alone(definition: Definition, key: str) -> str:
    return digest({key: definition[key]} if key in definition else {})


def drift(
    lock: Lock, route: str, name: str, definition: Definition, *, withheld: bool, kind: Kind = "tool"
) -> Drift | None:
    """How what is listed differs from its pin; None where it does not."""
    own, found = str(definition[NAMED_BY[kind]]), digest(definition)
    known = lock.pins.get(route, {}).get(kind, {}).get(own)
    if known is None:
        return Drift(route, kind, own, name, "new", (), None, found, withheld)
    if known.sha256 == found:
        return None
    fields = differing(known.definition, definition)
    return Drift(route, kind, own, name, "changed", fields, known.sha256, found, withheld)


def render(lock: Lock) -> str:
    """The text of the file."""
    routes = {
        route: {
            section: {name: _shown(one, kind) for name, one in sorted(pins.get(kind, {}).items())}
            for kind, section in SECTIONS.items()
            if kind == "tool" or pins.get(kind)
        }
        for route, pins in sorted(lock.pins.items())
    }
    text = json.dumps({"version": 1, "routes": routes}, indent=2, ensure_ascii=False)
    return escaped(text) + "\n"


def parse(text: str) -> Lock:
    """Read the text of the file.

    Raises:
        Unreadable: it is none, or was edited.
    """
    try:
        document = json.loads(text, object_pairs_hook=_without_repetition)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Unreadable(f"is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("version") != 1 or not isinstance(document.get("routes"), dict):
        raise Unreadable("is no lock of version 1")
    return Lock({route: _pins(route, entry) for route, entry in document["routes"].items()})


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("has a name twice in one object")
    return found


def _pins(route: str, entry: Any) -> Pins:
    """Raises: Unreadable: it has no tools, or a section that is none; the others may be absent."""
    where = f"routes.{route}"
    if not isinstance(entry, dict) or "tools" not in entry:
        raise Unreadable("has no tools", where)
    if unknown := sorted(set(entry) - set(SECTIONS.values())):
        raise Unreadable(f"has sections that nobody knows: {', '.join(unknown)}", where)
    found: dict[Kind, Mapping[str, Pin]] = {}
    for kind, section in SECTIONS.items():
        shown = entry.get(section, {})
        if not isinstance(shown, dict):
            raise Unreadable("is no mapping", f"{where}.{section}")
        pins = {name: _pin(f"{where}.{section}.{name}", name, kind, one) for name, one in shown.items()}
        if pins:
            found[kind] = pins
    return found


def _pin(where: str, name: str, kind: Kind, shown: Any) -> Pin:
    if not isinstance(shown, dict) or not isinstance(shown.get("definition"), dict):
        raise Unreadable("has no definition", where)
    definition = {NAMED_BY[kind]: name, **shown["definition"]}
    if isinstance(lines := definition.get("description"), list) and all(isinstance(line, str) for line in lines):
        definition["description"] = "\n".join(lines)
    if digest(definition) != shown.get("sha256"):
        raise Unreadable("was edited: its text is not the one of its hash", where)
    return Pin(digest(definition), definition)


def _sorted(value: Any) -> Any:
    """With members in one order, whatever the backend's is this time."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(part) for part in value] if isinstance(value, list) else value


def _shown(one: Pin, kind: Kind) -> dict[str, Any]:
    definition = {key: _sorted(one.definition[key]) for key in sorted(one.definition) if key != NAMED_BY[kind]}
    description = definition.get("description")
    if isinstance(description, str) and "\n" in description:
        definition["description"] = description.split("\n")
    return {"sha256": one.sha256, "definition": definition}
