"""Secrets inside of a text: tokens, keys, URLs with a password, and what is assigned to a name like that of a secret.

A text may be JSON, a form, a header, a command line or YAML, and JSON within JSON, cut anywhere: it is searched, not
parsed. In doubt more is hidden. Every pattern is bounded, so the work is linear in what is kept.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"
STRING_LIMIT = 1024
"""Characters of one string that are kept."""

NAME_WORDS = (
    r"passw(?:or)?d|passwd|passphrase|pwd|secret|token|api{0}key|access{0}key|private{0}key|signing{0}key"
    r"|encryption{0}key|authorization|cookie|credential|jwt|bearer"
)
"""What names of secrets contain, with ``{0}`` for what may stand between two words."""

_WORD = NAME_WORDS.format("[-_. ]?")
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*|bearer[\s:=]+[^\s\"',;]+", re.IGNORECASE)
_KNOWN = re.compile(
    r"gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{15,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|sk-[\w-]{20,}|npm_[A-Za-z0-9]{36}"
)
_LONG = 20
_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL)
_IN_URL = re.compile(r"(://[^/\s:@\"']{0,128}:)[^/\s@\"']{1,256}(?=@)")
_COOKIES = re.compile(r"(cookie[\"']?\s{0,4}[:=]\s{0,4}+)[^\r\n\"'\\\[{][^\r\n\"'\\]*", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""(?P<name>(?:{_WORD})[\w.-]{{0,32}})(?P<between>\\{{0,8}}["']?\s{{0,4}}(?:=>|[:=])\s{{0,4}})(?!\[redacted\])"""
    r"""(?:(?P<quote>\\{0,8}["'])(?P<quoted>.*?)(?:(?<!\\)(?P=quote)|\Z)"""
    r"""|(?P<group>[\[{].*)"""
    r"""|(?P<plain>(?:(?:basic|digest|negotiate|apikey|token)\s{1,4})?[^\s"'\\,;&}\])]{1,1024}))""",
    re.IGNORECASE | re.DOTALL,
)


def clean_text(text: str) -> str:
    """Cut a string to ``STRING_LIMIT`` and take the secrets out of it; itself where there is nothing to do."""
    left = len(text) - STRING_LIMIT
    if left > 0:
        text = text[:STRING_LIMIT]
    if suspect(text):
        text = _without_secrets(text)
    return f"{text}[cut, {left} more characters]" if left > 0 else text


def suspect(text: str) -> bool:
    """Whether a look is worth its microseconds: this runs for every string of every call."""
    lowered = text.lower()
    if "eyj" in lowered or "bearer" in lowered or (len(text) >= _LONG and _may_be_known(text)):
        return True
    assigns = ":" in text or "=" in text
    return assigns and (
        "pass" in lowered
        or "pwd" in lowered
        or "secret" in lowered
        or "token" in lowered
        or "key" in lowered
        or "auth" in lowered
        or "cookie" in lowered
        or "credential" in lowered
        or "jwt" in lowered
        or "@" in text
    )


def _may_be_known(text: str) -> bool:
    return (
        "gh" in text
        or "sk-" in text
        or "AIza" in text
        or "KIA" in text
        or "SIA" in text
        or "xox" in text
        or "glpat-" in text
        or "npm_" in text
        or "-----BEGIN" in text
    )


def _without_secrets(text: str) -> str:
    text = _KNOWN.sub(REDACTED, text)
    text = _TOKEN.sub(REDACTED, text)
    text = _KEY.sub(rf"\1{REDACTED}", text)
    text = _IN_URL.sub(rf"\1{REDACTED}", text)
    text = _COOKIES.sub(rf"\1{REDACTED}", text)
    return _ASSIGNED.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    if found["name"].lower().endswith("tokens") and (found["plain"] or "").isdigit():
        return found[0]  # an amount
    quote = found["quote"] or ""
    return f"{found['name']}{found['between']}{quote}{REDACTED}{quote}"
