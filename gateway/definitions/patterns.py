"""Whether a pattern of a schema can be made to run for long, found out before it judges anything.

Patterns run on an engine that takes time in proportion to the text. Only look-around and back-references need one that
goes back and tries again. Of those, a pattern is taken if it looks around a few times, not within another look and not
repeatedly, and refers to no earlier match: then its time is bounded by the square of the text's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import jsonschema_rs

BACKTRACKS = 10_000
"""Steps back of one pattern on one text; beyond them it does not fit."""

MAX_LOOKS = 8
MOST_BYTES = 4 << 20
"""Of one pattern when it is compiled: enough for ``.{1,1000}``."""

_LINEAR = jsonschema_rs.RegexOptions(size_limit=MOST_BYTES)
_LOOK = re.compile(r"\(\?<?[=!]")
_MANY = re.compile(r"[*+]|\{(?!0?,?1?\}|0,1\})")
_VERBOSE = re.compile(r"\(\?[a-zA-Z-]*x")
_REFERENCE = re.compile(r"\\[1-9kg]|\(\?\(")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\((?:\?<?[=!]|\?\()?|\)", re.DOTALL)


def is_linear(pattern: str) -> bool:
    """Whether the engine takes it that never goes back."""
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=_LINEAR)
    except ValueError:
        return False
    return True


def is_bounded(pattern: str) -> bool:
    """Whether one that goes back does so within the bounds above. False where the form cannot be told for sure."""
    if _VERBOSE.search(pattern) is not None:
        return False
    groups: list[_Group] = []
    looks = 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if _REFERENCE.match(text) is not None or _nests(text):
            return False
        if text.startswith("("):
            look = _LOOK.match(text) is not None
            looks += look
            if looks > MAX_LOOKS or (look and any(group.look for group in groups)):
                return False
            groups.append(_Group(look, holds=look))
        elif text == ")" and not _closed(groups, repeated=_MANY.match(pattern, token.end()) is not None):
            return False
    return not groups


def _nests(text: str) -> bool:
    """Whether a class of characters has another in it, whose end engines see in different places."""
    return text.startswith("[") and re.search(r"\[(?!:)", re.sub(r"\\.", "", text[1:], flags=re.DOTALL)) is not None


def _closed(groups: list[_Group], *, repeated: bool) -> bool:
    """Close the innermost group; False where there is none, or one with a look-around would be repeated."""
    if not groups:
        return False
    closed = groups.pop()
    if groups:
        groups[-1].holds |= closed.holds
    return not (closed.holds and repeated)


def cost(length: int) -> int:
    """What a bounded pattern on a text of this length costs at most, in units of about ten nanoseconds."""
    return 2 * length * length + 100 * length + 25_000


@dataclass(slots=True)
class _Group:
    look: bool
    holds: bool
    """It is, or has in it, a look-around."""
