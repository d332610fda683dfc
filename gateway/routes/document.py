"""YAML text in, plain values with the line of each out; or problems, all that can be found.

The rules of this file: YAML 1.2 core schema whatever a directive says (``off`` is text, ``010`` is ten); a key twice,
a tag, a merge key, a second document and a key without a value are errors; aliases and depth are bounded, so that
no text of a megabyte grows into more. ruamel.yaml scans and parses; values are made here, because only here is the
line of every node at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

Location = tuple[str | int, ...]

MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_NODES = 50_000
"""Nodes of a document, those behind aliases counted as often as they are used."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_PREFIXED = re.compile(r"0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


@dataclass(slots=True)
class Node:
    """A value of the document. ``children`` by key or index; ``line`` counts from 1; ``size`` is all nodes in it."""

    value: Any
    line: int
    children: dict[str | int, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    size: int = 1

    def line_of(self, location: Location) -> int:
        """The line of the deepest node on the way that exists; of a mapping's entry, the line of its key."""
        node, line = self, self.line
        for part in location:
            if part not in node.children:
                break
            child = node.children[part]
            line = node.key_lines.get(str(part), child.line) if isinstance(node.value, dict) else child.line
            node = child
        return line

    def at(self, location: Location) -> Any:
        """The value there, or None."""
        node: Node | None = self
        for part in location:
            node = node.children.get(part) if node else None
        return node.value if node else None


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem of the document itself."""

    line: int
    location: Location
    message: str
    hint: str = ""


class Unreadable(Exception):  # noqa: N818 - not a bug, an answer
    """The text is no document that could be looked at further."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def read(text: str) -> tuple[Node | None, list[Fault]]:
    """The root of the document, or None where there is none; and what is wrong with it.

    Raises:
        Unreadable: not YAML, or beyond the bounds.
    """
    builder = _Builder(text)
    return builder.document(), builder.faults


def _events(text: str) -> Iterator[Event]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise Unreadable(Fault(mark.line + 1 if mark else 1, (), f"is not YAML: {message}")) from None
    except YAMLError:
        raise Unreadable(Fault(1, (), "is not YAML: it has characters that YAML does not allow")) from None
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError, AssertionError):
        # What the scanner lets through for escapes and directives that make no sense.
        raise Unreadable(Fault(1, (), "is not YAML: it has an escape or a directive without a meaning")) from None


class _Builder:
    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self._anchors: dict[str, Node | None] = {}
        self._aliases = 0
        self.faults: list[Fault] = []

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, StreamEndEvent):
                break
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise Unreadable(Fault(_line(event), (), "has a second document", "remove what follows ---"))
                root = self._node(next(self._events), ())
        return root

    def _node(self, event: Event, location: Location) -> Node:
        if len(location) > MAX_DEPTH:
            raise Unreadable(Fault(_line(event), location, f"is nested deeper than {MAX_DEPTH} levels"))
        if isinstance(event, AliasEvent):
            return self._alias(event, location)
        if getattr(event, "tag", None):
            self._fault(event, location, "has a tag; tags are not allowed", "remove the word after !")
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = None
        node = self._built(event, location)
        if node.size > MAX_NODES:
            raise Unreadable(Fault(node.line, location, f"has more than {MAX_NODES} values, aliases counted"))
        if anchor:
            self._anchors[anchor] = node
        return node

    def _built(self, event: Event, location: Location) -> Node:
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, location)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, location)
        return self._scalar(event, location)

    def _alias(self, event: AliasEvent, location: Location) -> Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise Unreadable(Fault(_line(event), location, f"has more than {MAX_ALIASES} aliases"))
        node = self._anchors.get(event.anchor)
        if node is None:
            message = "contains itself" if event.anchor in self._anchors else "is an alias of nothing"
            raise Unreadable(Fault(_line(event), location, message, "an anchor (&) stands before its alias (*)"))
        return node

    def _mapping(self, start: Event, location: Location) -> Node:
        node = Node({}, _line(start))
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, location)
            child = self._node(next(self._events), (*location, key))
            if key in node.children:
                self._fault(event, (*location, key), f"is there twice, first in line {node.key_lines[key]}", "keep one")
                continue
            if child.value is None:
                self._fault(event, (*location, key), "has no value", "write one, or remove the key")
            node.value[key], node.children[key], node.key_lines[key] = child.value, child, _line(event)
            node.size += child.size
        return node

    def _sequence(self, start: Event, location: Location) -> Node:
        node = Node([], _line(start))
        while not isinstance(event := next(self._events), SequenceEndEvent):
            index = len(node.value)
            child = self._node(event, (*location, index))
            if child.value is None:
                self._fault(event, (*location, index), "has no value", "write one, or remove the entry")
            node.value.append(child.value)
            node.children[index] = child
            node.size += child.size
        return node

    def _key(self, event: Event, location: Location) -> str:
        if not isinstance(event, ScalarEvent):
            raise Unreadable(Fault(_line(event), location, "has a key that is not text"))
        key = self._node(event, location).value
        if event.value == "<<":
            self._fault(event, (*location, "<<"), "merge keys are not allowed", "write the keys out")
        elif not isinstance(key, str):
            self._fault(event, (*location, str(event.value)), "is a key that is not text", "quote it")
        return str(event.value)

    def _scalar(self, event: Event, location: Location) -> Node:
        assert isinstance(event, ScalarEvent)
        text = str(event.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise Unreadable(Fault(_line(event), location, "has half of a surrogate pair"))
        return Node(_plain(text) if event.implicit[0] else text, _line(event))

    def _fault(self, event: Event, location: Location, message: str, hint: str) -> None:
        self.faults.append(Fault(_line(event), location, message, hint))


def _plain(text: str) -> Any:
    """YAML 1.2, 10.3.2: the core schema. Numbers that no field could mean stay text."""
    word = (
        text if text in _WORDS else text.lower() if text in {"Null", "NULL", "True", "TRUE", "False", "FALSE"} else None
    )
    if word is not None:
        return _WORDS[word]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) and not text.strip("+-").isdigit() else text


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def render(location: Sequence[str | int]) -> str:
    """The YAML path as text: ``routes[0].backend.url``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part and all(character.isprintable() and character not in '.[]" ' for character in part):
            path += f".{part}" if path else part
        else:
            path += f"[{part!r}]"
    return path
