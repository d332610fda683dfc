"""Answers of token endpoints, read (RFC 6749 sections 5.1 and 5.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.egress.documents import UnusableError, as_object

UNSAID = 300.0
"""Seconds that a token is kept whose lifetime the answer does not say."""

LONGEST = 24 * 3600.0
"""Seconds that a token is kept at most, whatever the answer says."""

MAX_TOKEN = 64 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CODE = re.compile(r"[\x20-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. ``expires_at`` is in the seconds of the clock that was given, ``lifetime`` in seconds."""

    value: str = field(repr=False)
    expires_at: float
    lifetime: float
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)

    @property
    def stale_at(self) -> float:
        """When another is to be fetched: shortly before it ends."""
        return self.expires_at - min(30.0, self.lifetime / 10)


class TokenRefusedError(Exception):
    """The authorization server said no. ``code`` is its error code (RFC 6749 section 5.2), for the operator."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the authorization server refuses: {code}")
        self.code = code


class UnusableAnswerError(UnusableError):
    """The token endpoint is there and gives a token for what was asked, but none that is of use."""


def read_token(status: int, body: bytes, now: float) -> Token:
    """The token of an answer.

    Raises:
        TokenRefusedError: there is none, because the server says no.
        UnusableAnswerError: the token is none of use.
        UnusableError: there is none, because the answer is no answer of a token endpoint.
    """
    if status in (400, 401, 403):
        raise TokenRefusedError(_code(status, body))
    if status != 200:
        raise UnusableError(f"the token endpoint answers with HTTP status {status}")
    answer = as_object(body)
    value, kind = answer.get("access_token"), answer.get("token_type")
    if not isinstance(value, str) or not _is_token(value):
        raise UnusableAnswerError("the answer of the token endpoint has no access_token that a header can carry")
    # N_A: the issued token is no access token (RFC 8693 section 2.2.1), so it is not for a backend.
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise UnusableAnswerError("the token endpoint issues tokens that are not of type Bearer")
    lifetime = _lifetime(answer)
    refresh, identity = (
        given if isinstance(given, str) and _is_token(given) else None
        for given in (answer.get("refresh_token"), answer.get("id_token"))
    )
    return Token(value, now + lifetime, lifetime, refresh, identity)


def _lifetime(answer: Mapping[str, Any]) -> float:
    seconds = answer.get("expires_in", UNSAID)
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal():  # some servers write it as text
        seconds = float(seconds[:12])
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise UnusableAnswerError("the answer of the token endpoint has an expires_in that is no number of seconds")
    return min(float(seconds), LONGEST)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TOKEN and _TOKEN.fullmatch(value) is not None


def _code(status: int, body: bytes) -> str:
    try:
        code = as_object(body).get("error")
    except UnusableError:
        code = None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else f"HTTP status {status}"
