"""One token that is kept while it is good: fetched when it is needed, once for all who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.cause import because
from gateway.backends.credentials.tokens import Token, TokenRefusedError
from gateway.egress.documents import UnusableError

logger = logging.getLogger(__name__)

RENEWALS = 10.0
"""Seconds between two tokens that are fetched because the backend did not accept the one before."""


class KeptToken:
    """A token of one route. After a failure the next attempt waits, longer each time; meanwhile it is refused at once.

    Args:
        route: the word for the backend in messages and logs.
        fetch: gets a new one; raises ``TokenRefusedError`` or ``UnusableError``.
        clock: monotonic seconds, those of the tokens.
        refusal: what an error code of the authorization server means.
        backoff: between attempts that fail.
    """

    __slots__ = (
        "_backoff",
        "_clock",
        "_failure",
        "_fetch",
        "_meaning",
        "_next",
        "_renewed",
        "_route",
        "_running",
        "_token",
    )

    def __init__(
        self,
        route: str,
        fetch: Callable[[], Awaitable[Token]],
        *,
        clock: Callable[[], float],
        refusal: Callable[[str], link.NoCredentials] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._route = route
        self._fetch = fetch
        self._clock = clock
        self._meaning = refusal or (lambda _code: link.token_refused(route))
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._token: Token | None = None
        self._failure: TokenRefusedError | UnusableError | None = None
        self._next = float("-inf")
        self._renewed = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def get(self) -> str:
        """The token; a caller that is cancelled stops nothing.

        Raises:
            NoCredentials: there is none now.
        """
        now = self._clock()
        token = self._token
        if token is not None and now < token.stale_at:
            return token.value
        if self._running is not None or now >= self._next:
            await self._refresh()
            token = self._token
        if token is not None and self._clock() < token.expires_at:
            return token.value
        raise self._refusal()

    def refused(self, value: str) -> bool:
        """The backend did not accept this token. True: ask for it again, it will be another one."""
        token, now = self._token, self._clock()
        if token is None or token.value != value:
            return True
        if now < self._renewed + RENEWALS:
            return False
        self._renewed = now
        self._token = None
        self._next = min(self._next, now)
        return True

    def close(self) -> None:
        """End an attempt under way; whoever waits for it is refused."""
        if self._running is not None:
            self._running.cancel()

    async def _refresh(self) -> None:
        if self._running is None:
            self._running = asyncio.create_task(self._attempt(), name=f"token for {self._route}")
        task = self._running
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _attempt(self) -> None:
        try:
            self._token = await self._fetch()
            self._failure = None
            self._backoff.reset()
        except (TokenRefusedError, UnusableError) as failure:
            self._failure = failure
            self._next = self._clock() + self._backoff.next()
            logger.warning("%s: no token for its backend: %s", self._route, failure)
        finally:
            self._running = None

    def _refusal(self) -> link.NoCredentials:
        failure = self._failure
        if isinstance(failure, TokenRefusedError):
            return because(self._meaning(failure.code), str(failure))
        wait = max(0.0, self._next - self._clock())
        return because(link.no_token(self._route, retry_after=wait or None), str(failure or "no token"))
