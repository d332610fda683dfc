"""Characters that a person does not see and a model reads, or that steer a terminal.

Removed are control characters and the sequences that they begin (ECMA-48), bidirectional controls (UAX 9), tag
characters, invisible fillers and operators, and joiners and variation selectors where no script and no emoji wants them
(UTS 51, UAX 37). Line breaks of every kind become ``\\n``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

# Control sequences such as colours; strings such as titles and links; other escapes.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-Z\\\\^-~]"
)
_BREAK = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_ALWAYS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ud800-\udfff\U00013430-\U00013440\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
)
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_EMOJI = "\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINED = f"\u0600-\u1fff{_EMOJI}\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"

_REMOVED = re.compile(f"[{_ALWAYS}]")
_STRAY_SELECTOR = re.compile(
    f"(?<![{_EMOJI}{_IDEOGRAPHS}\u1820-\u18aa])[{_SELECTORS}](?!\u20e3)"
    f"|(?<![{_EMOJI}])[\ufe0e\ufe0f](?!\u20e3)"
    f"|(?<![{_IDEOGRAPHS}])[\ufe00-\ufe0d\U000e0100-\U000e01ef]"
)
_STRAY_JOINER = re.compile(f"(?<![{_JOINED}\ufe0f])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}])")
_SUSPECT = re.compile(f"[\r\x0b\x0c\x85\u2028\u2029\u200c\u200d{_ALWAYS}{_SELECTORS}]")

_ESCAPED = re.compile(rb"\\(?:u00|[bfr])|\x7f")


def cleaned(text: str) -> str:
    """The text without hidden characters; the same object where it has none. Cleaning twice changes nothing more."""
    if text.isascii() and text.isprintable():
        return text
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in (
        (_SEQUENCE, ""),
        (_BREAK, "\n"),
        (_REMOVED, ""),
        (_STRAY_SELECTOR, ""),
        (_STRAY_JOINER, ""),
    ):
        text = pattern.sub(replacement, text)
    return text


def escaped(text: str) -> str:
    """JSON text with every hidden character inside its strings as an escape, for a person to see."""
    return _SUSPECT.sub(lambda match: json.dumps(match[0])[1:-1], text)


def is_clean(encoded: bytes) -> bool:
    """Whether JSON that ``strict_json.encode`` made surely holds nothing hidden; a quick look, False may be wrong."""
    if _ESCAPED.search(encoded) is not None:
        return False
    return encoded.isascii() or _SUSPECT.search("".join(set(encoded.decode()))) is None


def hidden_in(value: Any) -> Iterator[str]:
    """Each hidden character in the texts and keys of a JSON value, as ``U+200B``."""
    if isinstance(value, str):
        kept = cleaned(value)
        if kept != value:
            gone = Counter(value) - Counter(kept)
            yield from (f"U+{ord(character):04X}" for character in gone if _SUSPECT.match(character))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from hidden_in(key)
            yield from hidden_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from hidden_in(part)
