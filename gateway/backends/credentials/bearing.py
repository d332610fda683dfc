"""Requests that bear a token: it is had before they leave, and had anew once when the backend does not accept it.

A 401 means that nothing was executed, so the one repetition does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from time import perf_counter

import httpx2
from msgspec.structs import replace

from gateway.backends import link
from gateway.backends.cause import because
from gateway.backends.credentials.source import TokenSource
from gateway.backends.envelope import Exchange
from gateway.backends.http1 import HttpClient, HttpResponse
from gateway.backends.modern import ModernHttp
from gateway.backends.wire import CALLER, Bearer, Lines, Wrap
from gateway.models import BackendRequest, Principal
from gateway.ports import Notify

_DENIED = (401, 403)


class BearingHttp(ModernHttp):
    """A modern backend whose requests bear the token of their principal."""

    def __init__(self, client: HttpClient, source: TokenSource, *, route: str, version: str) -> None:
        super().__init__(client, route=route, version=version)
        self._source = source

    async def _exchange(
        self,
        request: BackendRequest,
        notify: Notify,
        wanted: Container[str],
        *,
        request_id: int | None = None,
        idempotent: bool = False,
    ) -> tuple[Exchange, HttpResponse]:
        until = perf_counter() + request.max_timeout
        token = await self._token(request)
        for attempt in (1, 2):
            exchange, response = await super()._exchange(
                _with(request, token, until - perf_counter()),
                notify,
                wanted,
                request_id=request_id,
                idempotent=idempotent,
            )
            if response.status != 401 or attempt == 2 or not self._source.refused(request.principal, token):
                break
            token = await self._token(request)
        if response.status in _DENIED and (denial := self._source.denied(request.principal, response.status)):
            raise denial
        return exchange, response

    async def _token(self, request: BackendRequest) -> str:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._source.token(request.principal)
        except TimeoutError:
            raise because(link.no_token(self._route), "not in time") from None


def _with(request: BackendRequest, token: str, seconds: float) -> BackendRequest:
    """The request with its token, and what is left of its time."""
    left = max(0.001, seconds)
    headers = {**request.headers, "Authorization": f"Bearer {token}"} if token else request.headers
    return replace(request, headers=headers, timeout=min(request.timeout, left), max_timeout=left)


class Bearing(Bearer):
    """Requests of one session, each of which bears the token that its principal has for it.

    What is sent beside requests bears that of the latest one: the token that the session began with may have ended.
    A token that is not to be had, or not accepted, is a ``ConnectError`` whose cause is ``NoCredentials``.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, source: TokenSource, principal: Principal) -> None:
        self._inner = inner
        self._source = source
        self._principal = principal

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it; a second time if its token is not accepted and there is another."""
        caller = self._principal = request.extensions.pop(CALLER, self._principal)
        token = await self._token(caller)
        response = await self._send(request, token)
        if response.status_code == 401 and self._source.refused(caller, token):
            await response.aclose()
            response = await self._send(request, await self._token(caller))
        if response.status_code in _DENIED and (denial := self._source.denied(caller, response.status_code)):
            await response.aclose()
            raise httpx2.ConnectError("not admitted") from denial
        return response

    async def bear(self, caller: Principal | None, send: Callable[[Lines], Awaitable[HttpResponse]]) -> HttpResponse:
        """See ``wire.Bearer``."""
        principal = self._principal = caller or self._principal
        token = await self._source.token(principal)
        response = await send(_line(token))
        if response.status == 401 and self._source.refused(principal, token):
            response = await send(_line(await self._source.token(principal)))
        if response.status in _DENIED and (denial := self._source.denied(principal, response.status)):
            raise denial
        return response

    async def _send(self, request: httpx2.Request, token: str) -> httpx2.Response:
        if token:
            request.headers["authorization"] = f"Bearer {token}"
        return await self._inner.handle_async_request(request)

    async def _token(self, caller: Principal) -> str:
        try:
            return await self._source.token(caller)
        except link.NoCredentials as failure:
            raise httpx2.ConnectError("no token") from failure


def _line(token: str) -> Lines:
    return ((b"authorization", f"Bearer {token}".encode()),) if token else ()


def bearing(source: TokenSource) -> Wrap:
    """Sessions whose requests bear tokens of ``source``."""

    def wrap(inner: httpx2.AsyncBaseTransport, principal: Principal) -> Bearer:
        return Bearing(inner, source, principal)

    return wrap
