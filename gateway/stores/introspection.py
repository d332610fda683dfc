"""Opaque tokens, asked about at their issuer (RFC 7662).

Rules of this file:

- A token goes to the one configured endpoint, with the gateway's own credentials for it, and to nobody else.
- Callers with the same token share one question. Time, size and the number of questions at once are bounded; made-up
  tokens, however many, take nothing from those that were active before, which have connections of their own.
- Only ``active: true`` is a yes. No answer, an error, or an answer that is none is an outage, never a no.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import httpx2

from gateway.egress.addresses import Reach
from gateway.egress.documents import UnusableError, as_object, document_client, exchange
from gateway.errors import IssuerUnavailable
from gateway.models import JsonObject

if TYPE_CHECKING:
    from gateway.routes import Introspection, Issuer

MAX_QUESTIONS = 100
"""Questions at once about tokens that nobody has seen, and as many about others; beyond that one comes again later."""

_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Introspector:
    """Implements ``ports.Introspect`` for one issuer. ``client`` is for tests. Call ``aclose`` when done."""

    def __init__(
        self,
        issuer: Issuer,
        endpoint: Introspection,
        client: Callable[[Reach], httpx2.AsyncClient] = document_client,
    ) -> None:
        self.issuer = issuer.issuer
        self._url = endpoint.url
        self._headers = {"Authorization": _basic(endpoint), "Content-Type": "application/x-www-form-urlencoded"}
        self._lanes = {known: client("configured") for known in (False, True)}
        self._running: dict[bool, dict[bytes, asyncio.Task[JsonObject | None]]] = {False: {}, True: {}}
        self.failing = False
        """Whether the last question had no answer."""

    async def __call__(self, token: bytes, *, known: bool = False) -> JsonObject | None:
        """What the issuer says of a token; None where it is not active.

        Raises:
            IssuerUnavailable: it cannot be asked now.
        """
        digest, running = hashlib.sha256(token).digest(), self._running[known]
        task = running.get(digest)
        if task is None:
            if len(running) >= MAX_QUESTIONS:
                raise _unavailable()
            task = running[digest] = asyncio.create_task(self._ask(token, self._lanes[known]))
            task.add_done_callback(lambda _done: running.pop(digest, None))
        await asyncio.wait([task])  # a caller that leaves takes nothing from the others
        if task.cancelled():
            raise _unavailable()
        return task.result()

    async def aclose(self) -> None:
        """Give up the questions under way and close the connections."""
        tasks = [task for running in self._running.values() for task in running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._lanes.values():
            await client.aclose()

    async def _ask(self, token: bytes, client: httpx2.AsyncClient) -> JsonObject | None:
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        try:
            status, body = await exchange(client, "POST", self._url, content=form, headers=self._headers)
            if status != 200:
                raise UnusableError(f"HTTP status {status}{_HINTS.get(status, '')}")
            claims = dict(as_object(body))
            if not isinstance(claims.get("active"), bool):
                raise UnusableError("the answer does not say whether the token is active")
        except UnusableError as error:
            self._failed(error)
            raise _unavailable() from None
        self.failing = False
        return claims if claims["active"] else None

    def _failed(self, error: UnusableError) -> None:
        """Say it once, not for every token."""
        level = logging.DEBUG if self.failing else logging.ERROR
        _log.log(level, "tokens of issuer %s cannot be introspected: %s", self.issuer, error)
        self.failing = True


_HINTS = {
    401: ": are client_id and client_secret right?",
    403: ": may this client introspect tokens?",
    404: ": is the url right?",
}


def _basic(endpoint: Introspection) -> str:
    """RFC 6749 section 2.3.1: both parts form-encoded, then HTTP Basic."""
    pair = f"{quote_plus(endpoint.client_id)}:{quote_plus(endpoint.client_secret.get_secret_value())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _unavailable() -> IssuerUnavailable:
    return IssuerUnavailable(
        "The token's issuer cannot be asked about it now, so the token cannot be judged; try again.",
        retry_after=_RETRY_SECONDS,
    )
