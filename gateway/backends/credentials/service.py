"""Tokens that are the same for all principals."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.credentials import forms
from gateway.backends.credentials.endpoint import TokenEndpoint
from gateway.backends.credentials.keeping import KeptToken
from gateway.backends.link import NoCredentials
from gateway.models import Principal


class StaticToken:
    """Implements ``source.TokenSource``: one that the configuration names, or none."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, principal: Principal) -> str:
        """See ``TokenSource``."""
        return self._token

    def refused(self, principal: Principal, token: str) -> bool:
        """See ``TokenSource``: there is no other."""
        return False

    def denied(self, principal: Principal, status: int) -> NoCredentials | None:
        """See ``TokenSource``."""
        return None

    async def aclose(self) -> None:
        """See ``TokenSource``."""


class ServiceToken:
    """Implements ``source.TokenSource``: client credentials (RFC 6749 section 4.4)."""

    def __init__(self, route: str, endpoint: TokenEndpoint, *, clock: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._kept = KeptToken(route, lambda: endpoint.ask(forms.client_credentials()), clock=clock)

    async def token(self, principal: Principal) -> str:
        """See ``TokenSource``."""
        return await self._kept.get()

    def refused(self, principal: Principal, token: str) -> bool:
        """See ``TokenSource``."""
        return self._kept.refused(token)

    def denied(self, principal: Principal, status: int) -> NoCredentials | None:
        """See ``TokenSource``."""
        return None

    async def aclose(self) -> None:
        """See ``TokenSource``."""
        self._kept.close()
        await self._endpoint.aclose()
