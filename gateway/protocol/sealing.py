"""Values that a client carries for us, closed and bound to a purpose: AES-256-GCM with a ring of keys.

The first key seals, every key opens, so that keys are rotated without ending what was sealed before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.models import Principal

_NONCE = 12


class Sealer:
    """Seals bytes into visible ASCII for one purpose; what was sealed for another does not open.

    Args:
        keys: 32 bytes each.
        purpose: at most 16 bytes, different for every kind of value.
    """

    def __init__(self, keys: Sequence[bytes], purpose: bytes) -> None:
        self._purpose = purpose
        self._ciphers = tuple(AESGCM(hashlib.blake2b(key, digest_size=32, person=purpose).digest()) for key in keys)

    def seal(self, plain: bytes) -> str:
        """A new text that only ``open`` understands."""
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._ciphers[0].encrypt(nonce, plain, self._purpose)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, text: str) -> bytes | None:
        """What was sealed, or None for anything else: tampered with, of another purpose or key, or not ours.

        A value has one spelling: an ended one must not live on under another.
        """
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != text:
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._purpose)
            except (InvalidTag, ValueError):
                continue
        return None


def owner_of(principal: Principal) -> str:
    """A short name for a principal that tells nobody who it is."""
    text = f"{len(principal.issuer)}:{principal.issuer}{principal.subject}".encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()
