"""How a relayed message looks in Redis, which carries it but is not trusted with it.

A frame is the length of its head, the head, a nonce, and the payload under AES-256-GCM with the head as associated
data: nobody without a key of the ring reads, forges, redirects or changes one. Nobody repeats one either: a frame is
opened once, by the process it is addressed to, within ``WINDOW`` seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WINDOW = 30.0
"""Seconds that a frame may be under way, differences of the replicas' clocks included."""

EVERYBODY = "*"

_NONCE = 12
_TAG = 16
_PURPOSE = b"mcp-gw relay v1"
_MOST_HEAD = 1024
_MOST_NONCES = 100_000


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a frame says of itself. ``sent`` is in seconds since the epoch; ``seconds`` is how long an asker waits."""

    kind: Literal["ask", "answer", "failed", "cancel", "tell"]
    sender: str
    to: str
    topic: str = ""
    id: str = ""
    seconds: float = 0.0
    sent: float = 0.0


_heads = msgspec.json.Decoder(Head)
_encode = msgspec.json.Encoder().encode


class Frames:
    """Seals the frames of one process and opens those that are for it.

    Args:
        here: its address.
        keys: the key ring, 32 bytes each; the first seals, all open.
        now: seconds since the epoch.
        most: nonces that are remembered.
    """

    def __init__(self, here: str, keys: Sequence[bytes], now: Callable[[], float], *, most: int = _MOST_NONCES) -> None:
        self._here = here
        self._ciphers = [AESGCM(hashlib.blake2b(key, digest_size=32, person=_PURPOSE).digest()) for key in keys]
        self._now = now
        self._most = most
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._oldest = 0.0

    def seal(self, head: Head, payload: bytes) -> bytes:
        """The frame, stamped with the time."""
        encoded = _encode(msgspec.structs.replace(head, sender=self._here, sent=self._now()))
        nonce = os.urandom(_NONCE)
        return b"".join(
            (len(encoded).to_bytes(2, "big"), encoded, nonce, self._ciphers[0].encrypt(nonce, payload, encoded))
        )

    def open(self, frame: bytes) -> tuple[Head, bytes] | None:
        """Head and payload, or None for anything that is not a new frame for this process."""
        length = int.from_bytes(frame[:2], "big")
        encoded, nonce, sealed = frame[2 : 2 + length], frame[2 + length : 14 + length], frame[14 + length :]
        if length > _MOST_HEAD or len(sealed) < _TAG:
            return None
        payload = self._decrypt(nonce, sealed, encoded)
        if payload is None:
            return None
        try:
            head = _heads.decode(encoded)
        except (msgspec.DecodeError, msgspec.ValidationError):  # of another version of the gateway
            return None
        if head.to not in (self._here, EVERYBODY) or not self._is_new(nonce, head.sent):
            return None
        return head, payload

    def _decrypt(self, nonce: bytes, sealed: bytes, encoded: bytes) -> bytes | None:
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, encoded)
            except InvalidTag:
                continue
        return None

    def _is_new(self, nonce: bytes, sent: float) -> bool:
        """Remember the nonce. Where one has to be forgotten early, everything as old as it is refused from then on."""
        now = self._now()
        if nonce in self._seen or not max(now - WINDOW, self._oldest) < sent < now + WINDOW:
            return False
        self._seen[nonce] = sent
        while len(self._seen) > self._most or next(iter(self._seen.values())) <= now - WINDOW:
            _, forgotten = self._seen.popitem(last=False)
            self._oldest = max(self._oldest, forgotten)
        return True
