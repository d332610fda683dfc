"""What is recorded of a result: how large it was and, where that is wanted, a digest of it. Never the result itself."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Literal

ResultsMode = Literal["size", "digest", "none"]

NO_RESULT = b',"result_bytes":null,"result_digest":null'
"""The fields where there is no result."""

_MEMBER = b'"result":'


def result_digest(key: bytes | None, result: bytes | memoryview) -> str:
    """HMAC-SHA256 of the bytes of a result under a key derived from ``key``; without a key their SHA-256."""
    if key is None:
        return hashlib.sha256(result).hexdigest()
    return hmac.digest(derived(key, b"mcp-gateway audit results"), result, "sha256").hex()


@lru_cache(maxsize=8)
def derived(key: bytes, purpose: bytes) -> bytes:
    """A key of its own for each purpose."""
    return hmac.digest(key, purpose, "sha256")


class Results:
    """Makes the fields ``result_bytes`` and ``result_digest``.

    A digest costs about a microsecond and a millisecond for each MiB, on the event loop.
    """

    def __init__(self, mode: ResultsMode = "size", key: bytes | None = None) -> None:
        self.mode = mode
        self._key = key

    def fields(self, answer: bytes) -> bytes:
        """Those of the result in a JSON-RPC answer as it was sent: the bytes of its member ``result``."""
        if self.mode == "none":
            return NO_RESULT
        # The id, which a client chose, comes before; a quote in it is escaped, so it cannot hold this name.
        start = answer.find(_MEMBER) + len(_MEMBER)
        size = len(answer) - 1 - start
        if start < len(_MEMBER):
            return NO_RESULT
        if self.mode == "size":
            return b',"result_bytes":%d,"result_digest":null' % size
        digest = result_digest(self._key, memoryview(answer)[start:-1])
        return b',"result_bytes":%d,"result_digest":"%b"' % (size, digest.encode("ascii"))
