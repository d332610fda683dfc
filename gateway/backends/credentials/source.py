"""Where the token of a request comes from."""

from __future__ import annotations

from typing import Protocol

from gateway.backends.link import NoCredentials
from gateway.models import Principal


class TokenSource(Protocol):
    """The tokens for one backend."""

    async def token(self, principal: Principal) -> str:
        """What is sent as ``Authorization: Bearer`` on behalf of a principal; one without issuer is the gateway itself.

        Empty where nothing is sent.

        Raises:
            NoCredentials: there is none; nothing is sent.
        """
        ...

    def refused(self, principal: Principal, token: str) -> bool:
        """The backend did not accept it. True: ask again, and try once more."""
        ...

    def denied(self, principal: Principal, status: int) -> NoCredentials | None:
        """What a 401 or 403 in spite of a token means where it concerns this principal alone; None: it does not."""
        ...

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        ...
