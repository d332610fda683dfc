"""From what a route says to where its tokens come from."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.backends.credentials.connecting import Account
from gateway.backends.credentials.endpoint import TokenEndpoint
from gateway.backends.credentials.exchanging import ExchangedTokens
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import Grants
from gateway.backends.credentials.service import ServiceToken, StaticToken
from gateway.backends.credentials.source import TokenSource
from gateway.egress.addresses import Reach
from gateway.routes import Credentials, OAuthClient, Route


def open_account(route: Route, grants: Grants, *, clock: Callable[[], float] = time.monotonic) -> Account:
    """What a route with ``authorization_code`` has for connecting accounts."""
    credentials = route.backend.credentials
    assert credentials is not None
    assert credentials.authorization_code is not None
    opened, client = _Opening(route, clock), credentials.authorization_code
    return Account(GrantTokens(route.name, opened.endpoint(client), opened.beside(credentials), grants), client)


def open_source(route: Route, *, clock: Callable[[], float] = time.monotonic) -> TokenSource | None:
    """The source of a route's tokens; None where everything that it shows is known at load.

    Accounts that principals connect are opened by ``open_account``; here is what the gateway itself shows beside them.
    """
    credentials = route.backend.credentials
    if credentials is None or credentials.static:
        return None
    opened = _Opening(route, clock)
    if credentials.authorization_code is not None:
        return opened.beside(credentials)
    if credentials.token_exchange is None:
        return opened.own(credentials, None)
    client = credentials.token_exchange
    own = opened.own(credentials, client)
    return ExchangedTokens(route.name, opened.endpoint(client), own, clock=clock)


class _Opening:
    def __init__(self, route: Route, clock: Callable[[], float]) -> None:
        self._route = route
        self._clock = clock
        self._reach: Reach = "anywhere" if route.backend.allow_link_local else "configured"

    def endpoint(self, client: OAuthClient) -> TokenEndpoint:
        return TokenEndpoint(client, str(self._route.backend.url), reach=self._reach, clock=self._clock)

    def beside(self, credentials: Credentials) -> TokenSource:
        """Tokens for the gateway itself where principals have their own, or none."""
        given = credentials.bearer is not None or credentials.client_credentials is not None
        return self.own(credentials, None) if given else StaticToken("")

    def own(self, credentials: Credentials, otherwise: OAuthClient | None) -> TokenSource:
        """Tokens for the gateway itself: those that are configured for it, or client credentials of ``otherwise``."""
        if credentials.bearer is not None:
            return StaticToken(credentials.bearer.get_secret_value())
        client = credentials.client_credentials or otherwise
        assert client is not None
        return ServiceToken(self._route.name, self.endpoint(client), clock=self._clock)
