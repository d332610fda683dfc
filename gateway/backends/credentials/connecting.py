"""How a principal connects its account: from the link that its agent was given to the grant that is kept.

Whoever opens the link may be another person than the one whose agent got it, lured into granting an account of theirs
to somebody else (confused deputy). So the link grants nothing by being opened; a page names who will use the account,
and only a form of that page goes on; it works once, soon, and in one browser from its start to its end. Where the
authorization server is the one that the principal's token came from, the two must be the same person.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from gateway.audit import AuditEvent
from gateway.backends.credentials import forms
from gateway.backends.credentials.endpoint import Authority, TokenEndpoint
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import Grants
from gateway.backends.credentials.tokens import TokenRefusedError
from gateway.egress.documents import UnusableError
from gateway.errors import AuditUnavailable
from gateway.models import Principal
from gateway.ports import AuditLog
from gateway.protocol.sealing import Sealer
from gateway.routes import Auth, OAuthClient
from gateway.vault import Vault, VaultAway

logger = logging.getLogger(__name__)

INVITED = 15 * 60.0
"""Seconds in which a link must be opened, and the page's form be sent."""

FLOW = 10 * 60.0
"""Seconds from the form to the answer of the authorization server."""

PATH = "/connect/"
CALLBACK = PATH + "callback"

_OUTCOMES = {502: "backend_unavailable", 503: "overloaded"}


class ConnectError(Exception):
    """It goes no further. The text is for the person at the browser; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Account:
    """What a route has for connecting accounts: its tokens, and who the gateway is at the authorization server."""

    tokens: GrantTokens
    client: OAuthClient

    @property
    def endpoint(self) -> TokenEndpoint:
        """Where grants are made tokens."""
        return self.tokens.endpoint


@dataclass(frozen=True, slots=True)
class Page:
    """What the page names: the route, who will use the account, and where it is. ``form`` proves that it was shown."""

    route: str
    subject: str
    issuer: str
    server: str
    form: str


@dataclass(frozen=True, slots=True)
class _Begun:
    """What a state says. ``browser`` is a digest of the secret of its cookie, ``server`` who was asked for a grant."""

    route: str
    principal: Principal
    verifier: str = field(repr=False)
    browser: str
    server: str


class Connections:
    """Links and what becomes of them. Implements ``http.connect.Flow``.

    Args:
        keys: the key ring.
        vault: remembers what was used.
        grants: where what is granted is kept.
        auth: ``auth:`` as it is now.
        now: seconds since the epoch.
        audit: where every answer to what was begun here is recorded.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        vault: Vault,
        grants: Grants,
        *,
        auth: Callable[[], Auth | None],
        now: Callable[[], float],
        audit: AuditLog,
    ) -> None:
        self.grants = grants
        self._invitations = Sealer(keys, b"connect-invite")
        self._forms = Sealer(keys, b"connect-form")
        self._states = Sealer(keys, b"connect-state")
        self._vault = vault
        self._auth = auth
        self._now = now
        self._audit = audit
        self._accounts: dict[str, Account] = {}

    def register(self, route: str, account: Account) -> None:
        """A route whose principals connect accounts; replaces an older one of the name."""
        self._accounts[route] = account

    def only(self, routes: Collection[str]) -> None:
        """Forget the others: they are gone."""
        self._accounts = {name: account for name, account in self._accounts.items() if name in routes}

    @property
    def secure(self) -> bool:
        """Whether browsers reach the gateway over https."""
        return self._base().startswith("https:")

    def invite(self, route: str, principal: Principal) -> str:
        """The URL that a principal is asked to open. It says nothing to others, and grants nothing by being opened."""
        until = self._now() + INVITED
        sealed = self._invitations.seal(msgspec.json.encode([until, route, principal.issuer, principal.subject]))
        return f"{self._base()}{PATH}{sealed}"

    async def page(self, invitation: str, browser: str) -> Page:
        """What is shown before anything is done. ``browser`` is the secret of its cookie.

        Raises:
            ConnectError: the link is none of ours, or not any more.
        """
        route, principal = self._opened(invitation)
        authority = await self._authority(route)
        form = self._forms.seal(msgspec.json.encode([_digest(invitation), _digest(browser)]))
        server = urlsplit(authority.server.authorization_url or "").netloc
        return Page(route, principal.subject, principal.issuer, server, form)

    async def begin(self, invitation: str, browser: str, form: str) -> str:
        """The URL at the authorization server. The link is used up.

        Raises:
            ConnectError: the form was not of this page, or the link was used.
        """
        route, principal = self._opened(invitation)
        shown = self._forms.open(form)
        if shown is None or not browser or msgspec.json.decode(shown) != [_digest(invitation), _digest(browser)]:
            raise ConnectError("This form does not belong to this browser. Open the link again.", 403)
        authority = await self._authority(route)
        await self._use(invitation, INVITED, "This link was used. Call the tool again for another.")
        verifier = secrets.token_urlsafe(48)
        until = self._now() + FLOW
        parts = [until, route, principal.issuer, principal.subject, verifier, _digest(browser), authority.audience]
        state = self._states.seal(msgspec.json.encode(parts))
        return self._authorization_url(self._accounts[route], authority, state, verifier)

    async def finish(self, answer: Mapping[str, str], browser: str) -> str:
        """Keep what was granted; gives the route.

        Raises:
            ConnectError: nothing was granted, or not to this browser.
        """
        begun = self._started(answer.get("state", ""))
        event = AuditEvent(os.urandom(10).hex(), method="account/connect", route=begun.route)
        event.principal, event.started = begun.principal, self._now()
        try:
            await self._granted(begun, answer, browser, event)
            event.outcome, event.http_status = "ok", 200
        except ConnectError as error:
            event.outcome, event.http_status = _OUTCOMES.get(error.status, "invalid_request"), error.status
            event.rule = str(error)
            raise
        finally:
            self._audit.append(event)
        logger.info("%s: an account was connected", begun.route)
        return begun.route

    async def _granted(self, begun: _Begun, answer: Mapping[str, str], browser: str, event: AuditEvent) -> None:
        if not browser or begun.browser != _digest(browser):
            raise ConnectError("This was begun in another browser. Nothing was connected.", 403)
        await self._use(answer["state"], FLOW, "This answer was used already.")
        account, authority = self._accounts[begun.route], await self._authority(begun.route)
        if authority.audience != begun.server:
            raise ConnectError("Another authorization server is used by now. Call the tool again.", 409)
        _check_answer(answer, authority)
        await self._intend(event)
        form = forms.authorization_code(answer["code"], begun.verifier, self._base() + CALLBACK)
        try:
            token = await account.endpoint.ask(form, scoped=False)
            self._check_person(token.id_token, authority, begun.principal)
            await account.tokens.keep(begun.principal, token, begun.server)
        except (TokenRefusedError, UnusableError) as failure:
            logger.warning("%s: an account could not be connected: %s", begun.route, failure)
            raise ConnectError("The authorization server gave no token. Call the tool again.", 502) from None
        except VaultAway:
            raise _away() from None

    async def _intend(self, event: AuditEvent) -> None:
        """What is granted is on record before it is had."""
        try:
            await self._audit.intend(event)
        except AuditUnavailable:
            raise ConnectError("The gateway cannot record this now. Try again later.", 503) from None
        event.dispatched = True

    def _base(self) -> str:
        auth = self._auth()
        assert auth is not None, "routes with accounts need auth:"
        parts = urlsplit(auth.resource)
        return f"{parts.scheme}://{parts.netloc}"

    def _opened(self, invitation: str) -> tuple[str, Principal]:
        plain = self._invitations.open(invitation)
        if plain is not None:
            until, route, issuer, subject = msgspec.json.decode(plain)
            if until > self._now() and route in self._accounts:
                return route, Principal(issuer, subject)
        raise ConnectError("This link is not valid, or not any more. Call the tool again for another.", 404)

    def _started(self, state: str) -> _Begun:
        plain = self._states.open(state)
        if plain is not None:
            until, route, issuer, subject, verifier, browser, server = msgspec.json.decode(plain)
            if until > self._now() and route in self._accounts:
                return _Begun(route, Principal(issuer, subject), verifier, browser, server)
        raise ConnectError("This answer belongs to nothing that was begun here, or came too late.")

    async def _use(self, text: str, seconds: float, otherwise: str) -> None:
        try:
            first = await self._vault.claim("used:" + _digest(text), seconds)
        except VaultAway:
            raise _away() from None
        if not first:
            raise ConnectError(otherwise, 409)

    async def _authority(self, route: str) -> Authority:
        try:
            authority = await self._accounts[route].endpoint.authority()
        except UnusableError as failure:
            logger.warning("%s: its authorization server is not known: %s", route, failure)
            raise ConnectError("The authorization server cannot be reached now. Try again later.", 502) from None
        if authority.server.authorization_url is None or (
            authority.issuer and "S256" not in authority.server.challenges
        ):
            logger.warning("%s: its authorization server has no authorization endpoint with PKCE (S256)", route)
            raise ConnectError("The authorization server does not offer what is needed.", 502)
        return authority

    def _authorization_url(self, account: Account, authority: Authority, state: str, verifier: str) -> str:
        """RFC 6749 section 4.1.1 with PKCE (RFC 7636 section 4.3) and a resource (RFC 8707)."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": account.client.client_id,
            "redirect_uri": self._base() + CALLBACK,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        scopes = account.endpoint.scopes(authority)
        if "offline_access" in scopes:  # else it is ignored (OpenID Connect Core, section 11)
            query["prompt"] = "consent"
        asked = forms.targeted(query, account.client, resource=account.endpoint.resource(authority), scopes=scopes)
        url = str(authority.server.authorization_url)
        return f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}"

    def _check_person(self, id_token: str | None, authority: Authority, principal: Principal) -> None:
        """Who signed in is who called, where both are told by the same issuer (the token came from it directly)."""
        auth = self._auth()
        known = next((one for one in auth.issuers if one.issuer == principal.issuer), None) if auth else None
        if id_token is None or known is None or authority.issuer != principal.issuer:
            return
        claims = _claims(id_token)
        if claims.get("iss") != authority.issuer or claims.get(known.subject_claim) != principal.subject:
            raise ConnectError("You signed in as somebody else than the one who was asked. Nothing was connected.", 403)


def _check_answer(answer: Mapping[str, str], authority: Authority) -> None:
    """RFC 6749 section 4.1.2, and who answers (RFC 9207 section 2.4)."""
    said = answer.get("iss")
    if (said is None and authority.server.names_issuer) or (
        said is not None and authority.issuer and said != authority.issuer
    ):
        raise ConnectError("The answer is of another authorization server. Nothing was connected.")
    if "error" in answer:
        raise ConnectError("Nothing was granted, so nothing was connected.")
    if not answer.get("code"):
        raise ConnectError("The answer has no code. Nothing was connected.")


def _claims(id_token: str) -> Mapping[str, Any]:
    parts = id_token.split(".")
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, msgspec.DecodeError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _away() -> ConnectError:
    return ConnectError("The gateway cannot remember this now. Try again later.", 503)
