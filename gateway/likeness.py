"""Names that people and models take for one another: other case, other separators, letters and digits of one look."""

from __future__ import annotations

import unicodedata

_SEPARATORS = str.maketrans("-.", "__")
_LOOKS = str.maketrans("I1|0O5S", "lllooss")


def in_one_case(name: str) -> str:
    """The name without what case and separators tell apart."""
    return unicodedata.normalize("NFKC", name).translate(_SEPARATORS).casefold()


def in_one_look(name: str) -> str:
    """The name without what only a close look tells apart."""
    return unicodedata.normalize("NFKC", name).translate(_SEPARATORS).translate(_LOOKS).casefold()


LOOKS = (in_one_case, in_one_look)
"""Two names look alike when one of these makes them the same."""
