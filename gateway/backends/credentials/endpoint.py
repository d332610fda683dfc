"""Asks an authorization server for tokens: finds its endpoint, proves who asks, reads the answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import httpx2

from gateway.backends.credentials import forms, metadata
from gateway.backends.credentials.metadata import Challenge, Protected, Server
from gateway.backends.credentials.tokens import Token, read_token
from gateway.egress.addresses import Reach
from gateway.egress.documents import UnusableError, as_object, document_client, exchange, fetch, is_secure, reach_of
from gateway.routes import AuthorizationCode, ClientCredentials, OAuthClient

T = TypeVar("T")

SECONDS = 5.0
"""For an answer of the token endpoint."""

_PROBE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
"""What a backend is sent to hear what it wants: nothing that does anything, and no credential."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Where tokens are had. ``audience`` is whom a client's assertion is for, ``scopes`` what the backend wants."""

    server: Server
    reach: Reach
    audience: str
    issuer: str | None = None
    resource: str | None = None
    scopes: tuple[str, ...] = ()


class TokenEndpoint:
    """The token endpoint of one client of one route.

    Args:
        client: who we are there.
        backend: the URL of the MCP server that the tokens are for.
        reach: which addresses the backend may be at.
        clients: makes HTTP clients; for tests.
        clock: monotonic seconds, those of the tokens.
        now: seconds since the epoch, for assertions.
    """

    def __init__(
        self,
        client: OAuthClient,
        backend: str,
        *,
        reach: Reach = "configured",
        clients: Callable[[Reach], httpx2.AsyncClient] = document_client,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self.backend = backend
        self._reach = reach
        self._make_client = clients
        self._clients: dict[Reach, httpx2.AsyncClient] = {}
        self._clock = clock
        self._now = now
        self._authority: Authority | None = None
        self._finding: asyncio.Task[Authority] | None = None
        self._issuer: str | None = client.issuer

    async def ask(self, form: forms.Form, *, scoped: bool = True) -> Token:
        """The token for a form, which is given its target and the proof of who asks; ``scoped``: and its scopes.

        Raises:
            TokenRefusedError: the server says no.
            UnusableError: it says nothing of use, or is not to be found.
        """
        authority = await self.authority()
        scopes = self.scopes(authority) if scoped else ()
        form = forms.targeted(form, self._client, resource=self.resource(authority), scopes=scopes)
        form, headers = forms.authenticated(
            form, self._client, audience=authority.audience, method=self._method(authority), now=self._now()
        )
        try:
            status, body = await exchange(
                self._http(authority.reach),
                "POST",
                authority.server.token_url,
                timeout=SECONDS,
                data=form,
                headers=headers,
            )
            return read_token(status, body, self._clock())
        except UnusableError:
            self._authority = None  # it may have moved
            raise

    async def authority(self) -> Authority:
        """Where tokens are had, found out once for all who ask; one who is cancelled stops nothing.

        Raises:
            UnusableError: it is not to be found.
        """
        if self._authority is not None:
            return self._authority
        if self._finding is None:
            self._finding = asyncio.create_task(self._found(), name="authorization server")
            self._finding.add_done_callback(_heard)
        finding = self._finding
        await asyncio.wait([finding])
        if finding.cancelled():
            raise UnusableError("it is not asked any more: the route was closed")
        return finding.result()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait([self._finding])
        for client in self._clients.values():
            await client.aclose()

    async def _found(self) -> Authority:
        try:
            self._authority = await self._find()
        finally:
            self._finding = None
        return self._authority

    async def _find(self) -> Authority:
        if self._client.token_url is not None:
            named = self._client.authorization_url if isinstance(self._client, AuthorizationCode) else None
            return Authority(Server(self._client.token_url, named), "configured", self._client.token_url)
        if self._client.issuer is not None:
            return await self._at(self._client.issuer, "configured")
        protected, challenge = await self._protected()
        if self._issuer not in (None, protected.issuer):
            raise UnusableError("the backend names another authorization server than before; nothing is sent there")
        found = await self._at(protected.issuer, self._elsewhere)
        self._issuer = protected.issuer
        return replace(found, resource=protected.resource, scopes=challenge.scopes or protected.scopes)

    @property
    def _elsewhere(self) -> Reach:
        """How far a URL may lead that the backend chose."""
        private = isinstance(self._client, ClientCredentials | AuthorizationCode) and self._client.allow_private
        return "configured" if private else "public"

    async def _at(self, issuer: str, reach: Reach) -> Authority:
        def server(body: bytes) -> Server:
            return metadata.server_of(as_object(body), issuer)

        found = await self._first(metadata.authorization_server_urls(issuer), reach, server)
        onward = reach_of(found.token_url, issuer) if reach == "configured" and not self._private() else reach
        return Authority(found, onward, issuer, issuer)

    def _private(self) -> bool:
        return self._elsewhere == "configured"

    async def _protected(self) -> tuple[Protected, Challenge]:
        """The backend's metadata: where its challenge says, or else at the well-known places (RFC 9728 section 5)."""

        def protected(body: bytes) -> Protected:
            return metadata.protected_of(as_object(body), self.backend)

        challenge = await self._challenge()
        named = challenge.metadata_url
        if named is None:
            return await self._first(metadata.protected_resource_urls(self.backend), self._reach, protected), challenge
        if not is_secure(named) and reach_of(named, self.backend) != "configured":
            raise UnusableError("the backend's challenge names metadata that are not at an https URL")
        reach = self._reach if reach_of(named, self.backend) == "configured" else self._elsewhere
        return await self._first((named,), reach, protected), challenge

    async def _challenge(self) -> Challenge:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        try:
            async with self._http(self._reach).stream(
                "POST", self.backend, content=_PROBE, headers=headers
            ) as response:
                said = response.headers.get("www-authenticate", "") if response.status_code == 401 else ""
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise UnusableError(f"the backend does not say who issues its tokens: {type(error).__name__}") from error
        return metadata.challenge_of(said)

    async def _first(self, urls: tuple[str, ...], reach: Reach, read: Callable[[bytes], T]) -> T:
        errors = []
        for url in urls:
            try:
                return read(await fetch(self._http(reach), url))
            except UnusableError as error:
                errors.append(str(error))
        raise UnusableError("its metadata was not found: " + "; ".join(dict.fromkeys(errors)))

    def _http(self, reach: Reach) -> httpx2.AsyncClient:
        if reach not in self._clients:
            self._clients[reach] = self._make_client(reach)
        return self._clients[reach]

    def resource(self, authority: Authority) -> str | None:
        """``resource`` of requests there (RFC 8707)."""
        wanted = self._client.resource
        return None if wanted == "none" else wanted or authority.resource or self.backend

    def scopes(self, authority: Authority) -> tuple[str, ...]:
        """The scopes that are asked for there."""
        return self._client.scopes or authority.scopes

    def _method(self, authority: Authority) -> Literal["basic", "post"]:
        if self._client.client_auth is not None:
            return self._client.client_auth
        return "post" if metadata.only_post(authority.server.methods) else "basic"


def _heard(task: asyncio.Task[Authority]) -> None:
    """Whoever waited is told; when nobody does any more, nobody needs to be."""
    if not task.cancelled():
        task.exception()
