"""A token for each principal, in exchange for its own (RFC 8693)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.cause import because
from gateway.backends.credentials import forms
from gateway.backends.credentials.endpoint import TokenEndpoint
from gateway.backends.credentials.keeping import KeptToken
from gateway.backends.credentials.source import TokenSource
from gateway.backends.credentials.tokens import Token, TokenRefusedError, UnusableAnswerError
from gateway.egress.documents import UnusableError
from gateway.models import Principal

MAX_TOKENS = 10_000
"""Principals' tokens that are kept; the least recently used go first."""

AT_ONCE = 8
"""Exchanges at one time."""

_OURS = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type"})
"""Refusals that concern the gateway as a client, not the principal."""


class ExchangedTokens:
    """Implements ``source.TokenSource``. What is in exchange for one token of a principal is not used with another of
    its tokens, which may be for less.

    Args:
        route: the word for the backend in messages and logs.
        endpoint: where tokens are exchanged.
        own: tokens for the gateway itself, which has nothing to exchange.
        clock: monotonic seconds, those of the tokens.
    """

    def __init__(
        self,
        route: str,
        endpoint: TokenEndpoint,
        own: TokenSource,
        *,
        clock: Callable[[], float],
        most: int = MAX_TOKENS,
    ) -> None:
        self._route = route
        self._endpoint = endpoint
        self._own = own
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[bytes, KeptToken] = OrderedDict()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._backoff = Backoff(1.0, 30.0)
        self._away_until = float("-inf")

    def __len__(self) -> int:
        return len(self._kept)

    async def token(self, principal: Principal) -> str:
        """See ``TokenSource``."""
        if not principal.issuer:
            return await self._own.token(principal)
        return await self._of(principal).get()

    def refused(self, principal: Principal, token: str) -> bool:
        """See ``TokenSource``."""
        if not principal.issuer:
            return self._own.refused(principal, token)
        return self._of(principal).refused(token)

    def denied(self, principal: Principal, status: int) -> link.NoCredentials | None:
        """See ``TokenSource``."""
        if not principal.issuer:
            return None
        return because(link.principal_not_admitted(self._route), f"HTTP status {status}")

    async def aclose(self) -> None:
        """See ``TokenSource``."""
        for kept in self._kept.values():
            kept.close()
        await self._own.aclose()
        await self._endpoint.aclose()

    def _of(self, principal: Principal) -> KeptToken:
        key = _key(principal)
        kept = self._kept.get(key)
        if kept is None:
            subject = principal.token.decode("latin-1")
            kept = KeptToken(
                self._route,
                lambda: self._exchange(subject),
                clock=self._clock,
                refusal=self._refusal,
            )
            self._kept[key] = kept
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept

    async def _exchange(self, subject: str) -> Token:
        """One exchange. While the endpoint is away, principals do not wait for it one after the other; an answer of
        no use for one of them says nothing about the others.
        """
        if self._clock() < self._away_until:
            raise UnusableError("the token endpoint gave no answer a moment ago")
        if not subject:
            raise TokenRefusedError("the principal has no token here")
        try:
            async with self._turns:
                token = await self._endpoint.ask(forms.token_exchange(subject))
        except UnusableAnswerError:
            self._backoff.reset()
            raise
        except UnusableError:
            self._away_until = self._clock() + self._backoff.next()
            raise
        self._backoff.reset()
        return token

    def _refusal(self, code: str) -> link.NoCredentials:
        return link.token_refused(self._route) if code in _OURS else link.principal_refused(self._route)


def _key(principal: Principal) -> bytes:
    digest = hashlib.sha256()
    for part in (principal.issuer.encode(), principal.subject.encode(), principal.token):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
