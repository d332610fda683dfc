"""``requestState`` of a backend, sealed for the way through the client (``basic/patterns/mrtr``).

A state that arrives is attacker-controlled: it is accepted only from the principal it was given to, for the request
it belongs to, at the backend it came from, until it expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.models import Call
from gateway.protocol.sealing import Sealer, owner_of
from gateway.protocol.strict_json import encode

LIFETIME = 15 * 60.0
MAX_LENGTH = 256 * 1024


class RequestStates:
    """Seals and opens states.

    Args:
        keys: the key ring.
        now: seconds since the epoch.
    """

    def __init__(self, keys: Sequence[bytes], now: Callable[[], float]) -> None:
        self._sealer = Sealer(keys, b"request-state")
        self._now = now

    def seal(self, call: Call, state: str, holder: str = "") -> str:
        """The backend's state, bound to this call, with the address of the process that holds it."""
        return self._sealer.seal(encode([self._now() + LIFETIME, _binding(call), holder, state]))

    def open(self, call: Call, sealed: Any) -> tuple[str, str]:
        """The backend's state again, and the address of the process that holds the call.

        Raises:
            InvalidRequest: -32602 for a state that is not of this principal and request, or has expired.
        """
        plain = self._sealer.open(sealed) if isinstance(sealed, str) and len(sealed) <= MAX_LENGTH else None
        if plain is not None:
            expires_at, binding, holder, state = msgspec.json.decode(plain)
            if binding == _binding(call) and expires_at > self._now():
                return str(state), str(holder)
        raise InvalidRequest(
            "This requestState does not belong to this request, or has expired.",
            code=INVALID_PARAMS,
            status=200,
            rule="protocol.request_state",
            hint="Send the request again without it.",
        )


def _binding(call: Call) -> str:
    entry = call.entry
    parts = [owner_of(call.principal), call.request.method, entry.route, entry.kind, entry.backend_name, call.arguments]
    return hashlib.blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=16).hexdigest()
