"""HTTP/1.1 messages whose head was read before, byte for byte but for the digits of ``Content-Length``.

Whoever keeps a head has had it read by a parser, as the head of exactly the message it is taken from; the same bytes
then mean the same again, and so many bytes of body follow as the digits say (RFC 9112 section 6.3).
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 4096
"""Bytes of a head that is worth keeping."""

_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,7})\r\n", re.IGNORECASE)
_DIGITS = 8
_END = b"\r\n\r\n"


class Head(NamedTuple):
    """What is before and behind the digits of the length, and where those begin."""

    before: bytes
    behind: bytes
    at: int

    @classmethod
    def of(cls, message: bytes) -> Head | None:
        """The head of one whole message with a body of a given length; None where it cannot be told apart for sure.

        The message has one ``Content-Length`` and no ``Transfer-Encoding``, as its parser said.
        """
        end = message.find(_END) + len(_END)
        found = _LENGTH.search(message, 0, end)
        # The body is the last so many bytes, wherever the parser saw the end of the head.
        if found is None or end > LONGEST or int(found[1]) != len(message) - end:
            return None
        return cls(message[: found.start(1)], message[found.end(1) : end], found.start(1))

    def begins(self, data: bytes) -> tuple[bytes, bytes, int] | None:
        """The digits, what there is of the body, and how much of it is still to come, where ``data`` begins with this
        head and has nothing behind the body.
        """
        before, behind, at = self
        if not data.startswith(before):
            return None
        end = data.find(b"\r", at, at + _DIGITS)
        digits = data[at:end]
        if not digits.isdigit() or not data.startswith(behind, end):
            return None
        body = data[end + len(behind) :]
        owed = int(digits) - len(body)
        return (digits, body, owed) if owed >= 0 else None
