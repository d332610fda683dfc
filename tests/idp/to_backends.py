"""Tokens for a backend from Keycloak: the gateway's own, and one for each user in exchange for its own."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.browser import URL, Browser, question
from tests.e2e.harness import Client, until
from tests.integration.servers.start import HttpServer, http_server

from .gateway import Behind
from .issuers import RESOURCE, Keycloak, part_of

PUBLIC = RESOURCE.removesuffix("/mcp")
Run = Callable[[str, Callable[[], None]], None]


def run(idp: Keycloak, folder: Path, check: Run) -> None:
    """Start a backend that says what it sees, and a gateway before it, and make the checks."""
    with http_server() as seen, _gateway(folder / "to-backends", idp, seen) as one:
        check("keycloak: a backend is shown a token of the gateway", lambda: _own(idp, one))
        check("keycloak: a backend is shown one for the user, exchanged", lambda: _exchanged(idp, one))
        check("keycloak: a user whose token is not for the exchange is told", lambda: _refused(idp, one))
        idp.accounts_client(f"{PUBLIC}/connect/callback")
        check("keycloak: a user connects an account for a backend", lambda: _connected(idp, one))
        check("keycloak: an account of another user is not connected", lambda: _of_another(idp, one))


@contextmanager
def _gateway(folder: Path, idp: Keycloak, seen: HttpServer) -> Iterator[Behind]:
    def of(kind: str, client: str) -> str:
        asked = f"issuer: '{idp.issuer}', client_id: {client}, client_secret: '${{SECRET}}', scopes: ['deploy:read']"
        return f"{kind}: {{{asked}}}"

    def route(name: str, *credentials: str) -> str:
        shown = ", ".join(credentials)
        return (
            f"  - {{name: {name}, scopes: ['deploy:read'], backend: {{url: '{seen.url}', credentials: {{{shown}}}}}}}\n"
        )

    own = of("client_credentials", "ci")
    account = of("authorization_code", "accounts").replace("['deploy:read']", "[openid]")
    routes = route("own", own) + route("theirs", of("token_exchange", "portal"), own) + route("account", account, own)
    auth = f"auth: {{resource: '{RESOURCE}', issuers: [{{issuer: '{idp.issuer}'}}]}}\n"
    folder.mkdir()
    one = Behind(folder, f"{auth}routes:\n{routes}", {"SECRET": idp.secret}).start()
    try:
        yield one
    finally:
        one.stop()


def _token_seen(gateway: Behind, token: str, route: str) -> str:
    client = Client(gateway.url, token)
    until(lambda: f"{route}__stats" in client.tools())
    reply = client.call(f"{route}__stats").json()["result"]
    headers: dict[str, Any] = json.loads(reply["content"][0]["text"])["headers"]
    return str(headers["authorization"]).removeprefix("Bearer ")


def _own(idp: Keycloak, gateway: Behind) -> None:
    of_user = idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
    claims = part_of(_token_seen(gateway, of_user, "own"), 1)
    assert claims["azp"] == "ci"
    assert claims["sub"] != part_of(of_user, 1)["sub"]


def _exchanged(idp: Keycloak, gateway: Behind) -> None:
    of_user = idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
    seen = _token_seen(gateway, of_user, "theirs")
    assert seen != of_user
    claims = part_of(seen, 1)
    assert (claims["azp"], claims["sub"]) == ("portal", part_of(of_user, 1)["sub"])
    assert _token_seen(gateway, of_user, "theirs") == seen, "it is kept"
    again = idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
    assert _token_seen(gateway, again, "theirs") != seen, "another token is exchanged for itself"


def _connected(idp: Keycloak, gateway: Behind) -> None:
    of_user = idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
    done = _connect(idp, gateway, of_user)
    assert done.status_code == 200, done.text
    claims = part_of(_token_seen(gateway, of_user, "account"), 1)
    assert (claims["azp"], claims["sub"]) == ("accounts", part_of(of_user, 1)["sub"])


def _of_another(idp: Keycloak, gateway: Behind) -> None:
    """Somebody who is signed in as Ada follows a link that was made for a service."""
    of_service = idp.client_credentials("ci", "deploy:read")
    done = _connect(idp, gateway, of_service)
    assert done.status_code == 403
    assert "somebody else" in done.text
    question(Client(gateway.url, of_service).modern("tools/call", _CALL, URL))


_CALL = {"name": "account__stats", "arguments": {}}


def _connect(idp: Keycloak, gateway: Behind, token: str) -> Any:
    client = Client(gateway.url, token)
    until(lambda: "account__stats" in client.tools())
    browser = Browser(gateway, PUBLIC)
    where = browser.confirm(question(client.modern("tools/call", _CALL, URL))["url"])
    answer = idp.sign_in(where, "ada")
    return browser.send("GET", f"{PUBLIC}/connect/callback?{urlencode(answer)}")


def _refused(idp: Keycloak, gateway: Behind) -> None:
    of_user = idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
    idp.revoke("desktop", of_user)
    client = Client(gateway.url, of_user)
    said = json.loads(client.call("theirs__stats").json()["result"]["content"][0]["text"])
    assert (said["dispatched"], said["retryable"]) == (False, False), said
    assert "no token" in said["error"] or "no token" in json.dumps(said)
