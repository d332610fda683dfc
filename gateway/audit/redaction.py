"""What must not be written down. Arguments in, a bounded copy without secrets out.

Three rules, all applied: names that look like secrets, texts that hold some (``secret_text``), and the paths of
``redact:``. Long strings are cut before they are searched, so the work is bounded by what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from gateway.audit.secret_text import NAME_WORDS, REDACTED, STRING_LIMIT, clean_text, suspect

ARGUMENTS_LIMIT = 8 * 1024
"""Bytes of all arguments that are kept; beyond it only their digest is."""
DEPTH_LIMIT = 64

_SECRET_NAME = re.compile(NAME_WORDS.format(""))
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SEGMENT = re.compile(r"([^.\[\]]+)|\[(\*|\d+)\]")
_NAME_CACHED = 64
_FLAT_MEMBERS, _FLAT_STRING = 16, 256

_Node = dict[str, Any]
_HERE = ""


class TooLargeError(Exception):
    """The arguments are over ``ARGUMENTS_LIMIT``."""


def parse_path(path: str) -> tuple[str, ...]:
    """Split a redaction path: ``arguments.items[*].card`` is ``("items", "*", "card")``.

    Raises:
        ValueError: it does not start with ``arguments`` or has an empty or unreadable part.
    """
    head, _, _ = path.partition(".")
    root = head.partition("[")[0]
    rest = path[len(root) :]
    if root != "arguments":
        raise ValueError(f"{path!r} must start with 'arguments'")
    segments = [name or index for name, index in _SEGMENT.findall(rest)]
    spelled = "".join(f"[{index}]" if index else f".{name}" for name, index in _SEGMENT.findall(rest))
    if spelled != rest:
        raise ValueError(f"{path!r} is not a path such as arguments.a, arguments.*.a or arguments.a[*].b")
    return tuple(segments)


@lru_cache(maxsize=1024)
def _compile(paths: tuple[str, ...]) -> _Node:
    root: _Node = {}
    for path in paths:
        try:
            segments = parse_path(path)
        except ValueError:
            segments = ()  # a path nobody can read hides everything rather than nothing
        node = root
        for segment in segments:
            node = node.setdefault(segment, {})
        node[_HERE] = True
    return root


def _name(name: str) -> tuple[str, bool, bool]:
    """How a name is written, whether it looks like a secret's, and whether it counts tokens (``max_tokens``)."""
    known = _SEPARATORS.sub("", name[:STRING_LIMIT].lower())
    return clean_text(name), _SECRET_NAME.search(known) is not None, known.endswith("tokens")


_name_cached = lru_cache(maxsize=4096)(_name)


@lru_cache(maxsize=4096)
def _is_plain(name: str) -> bool:
    written, secret, _ = _name(name)
    return not secret and written == name


class _Redactor:
    """One walk. ``left`` counts down, so that a huge value ends it early."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ARGUMENTS_LIMIT

    def clean(self, value: Any, nodes: Sequence[_Node], depth: int) -> Any:
        self.left -= 4
        if self.left < 0 or depth > DEPTH_LIMIT:
            raise TooLargeError
        if isinstance(value, str):
            text = clean_text(value)
            self.left -= len(text)
            return text
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, dict):
            return self._clean_object(value, nodes, depth)
        if isinstance(value, list | tuple):
            return [self._clean_member(str(at), item, nodes, depth) for at, item in enumerate(value)]
        if isinstance(value, Mapping):
            return self._clean_object(value, nodes, depth)
        return REDACTED  # nothing JSON has: never written unread

    def _clean_object(self, value: Mapping[str, Any], nodes: Sequence[_Node], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        named = "value" in value and _names_a_secret(value)
        for name, item in value.items():
            self.left -= len(name)
            written, secret, counts = _name_cached(name) if len(name) <= _NAME_CACHED else _name(name)
            if (secret and not (counts and isinstance(item, int | float))) or (named and name == "value"):
                cleaned[written] = REDACTED
            else:
                cleaned[written] = self._clean_member(name, item, nodes, depth)
        return cleaned

    def _clean_member(self, name: str, value: Any, nodes: Sequence[_Node], depth: int) -> Any:
        if not nodes:
            return self.clean(value, nodes, depth + 1)
        below = [child for node in nodes for child in (node.get(name), node.get("*")) if type(child) is dict]
        if any(_HERE in node for node in below):
            return REDACTED
        return self.clean(value, below, depth + 1)


def _names_a_secret(pair: Mapping[str, Any]) -> bool:
    """Whether this is the value of something that another member names: ``{"name": "password", "value": …}``."""
    names = (pair.get("name"), pair.get("key"))
    return any(isinstance(name, str) and _name(name)[1] for name in names)


def _harmless(arguments: Mapping[str, Any]) -> bool:
    """Whether these are the few plain values that most calls have, with nothing to take out or to cut."""
    if len(arguments) > _FLAT_MEMBERS or "value" in arguments:
        return False
    for name, value in arguments.items():
        if len(name) > _NAME_CACHED or not _is_plain(name):
            return False
        if isinstance(value, str):
            if len(value) > _FLAT_STRING or suspect(value):
                return False
        elif value is not None and not isinstance(value, int | float):
            return False
    return True


def redact(arguments: Mapping[str, Any], paths: tuple[str, ...] = ()) -> Any:
    """The arguments as they may be written: themselves, or a copy.

    Raises:
        TooLargeError: they are over ``ARGUMENTS_LIMIT`` or nested deeper than ``DEPTH_LIMIT``.
    """
    if not paths and _harmless(arguments):
        return arguments
    root = _compile(paths) if paths else None
    if root and _HERE in root:
        return REDACTED
    return _Redactor().clean(arguments, (root,) if root else (), 0)
