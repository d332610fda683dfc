"""The configured issuers as one thing: their keys, their introspection, and the authenticator over both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.policy.authenticate import TokenAuthenticator
from gateway.stores.introspection import Introspector
from gateway.stores.jwks import JwksStore

if TYPE_CHECKING:
    from gateway.routes import Auth


class Issuers:
    """Of one configuration. ``start`` in the event loop that uses it, and ``aclose`` when done."""

    def __init__(self, auth: Auth) -> None:
        asked = auth.introspecting
        self.keys = JwksStore(auth)
        self.introspector = Introspector(asked, asked.introspection) if asked and asked.introspection else None
        self.authenticate = TokenAuthenticator(auth, self.keys, introspect=self.introspector)

    async def start(self) -> None:
        """Try the first fetch of keys, then keep them fresh; an issuer that is away is no error here."""
        await self.keys.start()

    async def aclose(self) -> None:
        """End what runs in the background and close the connections."""
        await self.keys.aclose()
        if self.introspector is not None:
            await self.introspector.aclose()
