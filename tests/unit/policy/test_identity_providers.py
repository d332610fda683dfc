"""Tokens as identity providers write them, under the settings that docs/identity-providers.md gives for each.

The claims are those of real tokens of each product, with made-up values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.devtokens import DevIssuer
from gateway.errors import Unauthenticated
from gateway.models import JsonObject, Principal
from gateway.policy.authenticate import TokenAuthenticator
from gateway.routes import Auth, parse

PAGE = (Path(__file__).parents[3] / "docs/identity-providers.md").read_text(encoding="utf-8")
SETTINGS = {
    heading: yaml.group(1)
    for heading, text in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if (yaml := re.search(r"```yaml\n(.*?)```", text, re.DOTALL))
}
ROUTES = "routes: [{name: a, backend: {url: 'http://a/mcp'}, scopes: []}]\n"
RESOURCE = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
TIMES = {"iat": NOW, "exp": NOW + 3600}
KEY = DevIssuer.create("https://any", algorithm="RS256").key

TENANT = "11111111-2222-3333-4444-555555555555"
APP = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
OBJECT = "99999999-8888-7777-6666-555555555555"
AGENT = "cccccccc-1111-2222-3333-444444444444"


def settings(heading: str) -> Auth:
    auth = parse(ROUTES + SETTINGS[heading], source="page", environ={"INTROSPECTION_SECRET": "s"}).auth
    assert auth is not None
    return auth


@dataclass
class Keys:
    """One key, which every issuer publishes under every name."""

    generation: int = 0
    asked: list[str] = field(default_factory=list)

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        self.asked.append(issuer)
        return [KEY.public_key()] if algorithm == "RS256" else []


async def accepted(heading: str, claims: JsonObject, **header: Any) -> Principal:
    text = jwt.encode(claims, KEY, "RS256", headers={"kid": "k", "typ": "JWT", **header})
    authenticate = TokenAuthenticator(settings(heading), Keys(), lambda: NOW)
    return await authenticate([b"Bearer " + text.encode()])


KEYCLOAK = {
    **TIMES,
    "auth_time": NOW,
    "jti": "onrtac:5a1a2b7c-7c55-4d1c-8f0e-0f6a3d3f5f0e",
    "iss": "https://sso.example.com/realms/agents",
    "aud": [RESOURCE, "account"],
    "sub": OBJECT,
    "typ": "Bearer",
    "azp": "desktop",
    "sid": "8d7a",
    "acr": "1",
    "allowed-origins": ["/*"],
    "realm_access": {"roles": ["offline_access", "deployer"]},
    "resource_access": {"account": {"roles": ["view-profile"]}},
    "scope": "email deploy:read",
    "email_verified": True,
    "preferred_username": "ada",
}
ENTRA = {
    **TIMES,
    "aud": APP,
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "nbf": NOW,
    "aio": "AWQAm",
    "azp": AGENT,
    "azpacr": "0",
    "name": "Ada",
    "oid": OBJECT,
    "preferred_username": "ada@example.com",
    "rh": "1.AQ",
    "scp": "deploy.read deploy.write",
    "sub": "pairwise",
    "tid": TENANT,
    "uti": "u",
    "ver": "2.0",
}
ENTRA_APPLICATION = {
    name: value for name, value in ENTRA.items() if name not in {"scp", "name", "preferred_username"}
} | {"roles": ["Deploy.Read"], "azpacr": "1", "sub": OBJECT, "idtyp": "app"}
ENTRA_V1 = {
    **TIMES,
    "aud": f"api://{APP}",
    "iss": f"https://sts.windows.net/{TENANT}/",
    "nbf": NOW,
    "acr": "1",
    "amr": ["pwd"],
    "appid": AGENT,
    "appidacr": "0",
    "oid": OBJECT,
    "scp": "deploy.read",
    "sub": "pairwise",
    "tid": TENANT,
    "unique_name": "ada@example.com",
    "upn": "ada@example.com",
    "ver": "1.0",
}
OKTA = {
    **TIMES,
    "ver": 1,
    "jti": "AT.5vY",
    "iss": "https://example.okta.com/oauth2/aus1a2b3c4d5e6f7",
    "aud": "api://mcp",
    "cid": "0oa1",
    "uid": "00u1",
    "scp": ["deploy:read", "offline_access"],
    "auth_time": NOW,
    "sub": "ada@example.com",
}
AUTH0 = {
    **TIMES,
    "iss": "https://example.eu.auth0.com/",
    "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
    "aud": [RESOURCE, "https://example.eu.auth0.com/userinfo"],
    "azp": "my_client_id",
    "scope": "openid profile deploy:write",
    "permissions": ["deploy:read"],
}
GOOGLE = {
    **TIMES,
    "iss": "https://accounts.google.com",
    "aud": RESOURCE,
    "azp": "1234567890",
    "email": "agent@project.iam.gserviceaccount.com",
    "email_verified": True,
    "sub": "1234567890",
}
RFC9068 = {
    **TIMES,
    "iss": "https://idp.example.com",
    "aud": RESOURCE,
    "sub": "ada",
    "client_id": "agent",
    "scope": "deploy:read",
    "jti": "1",
}


@pytest.mark.parametrize(
    ("heading", "claims", "header", "subject", "client", "scopes"),
    [
        (
            "Keycloak",
            KEYCLOAK,
            {},
            OBJECT,
            "desktop",
            {"email", "deploy:read", "offline_access", "deployer"},
        ),
        ("Microsoft Entra ID", ENTRA, {"x5t": "t"}, OBJECT, AGENT, {"deploy.read", "deploy.write"}),
        ("Microsoft Entra ID", ENTRA_APPLICATION, {}, OBJECT, AGENT, {"Deploy.Read"}),
        ("Microsoft Entra ID", ENTRA_V1, {"x5t": "t"}, OBJECT, AGENT, {"deploy.read"}),
        ("Okta", OKTA, {}, "ada@example.com", "0oa1", {"deploy:read", "offline_access"}),
        ("Auth0", AUTH0, {"typ": "at+jwt"}, "auth0|5f7c8ec7c33c6c004bbafe82", "my_client_id", {"deploy:read"}),
        ("Google", GOOGLE, {}, "1234567890", "1234567890", {"agent@project.iam.gserviceaccount.com"}),
        ("RFC 9068", RFC9068, {"typ": "at+jwt"}, "ada", "agent", {"deploy:read"}),
    ],
    ids=["keycloak", "entra-user", "entra-application", "entra-v1", "okta", "auth0", "google", "rfc9068"],
)
async def test_a_token_of_this_shape_is_read_as_the_page_says(
    heading: str, claims: JsonObject, header: JsonObject, subject: str, client: str, scopes: set[str]
) -> None:
    principal = await accepted(heading, claims, **header)
    assert (principal.issuer, principal.subject, principal.client_id) == (claims["iss"], subject, client)
    assert principal.scopes == scopes


@pytest.mark.parametrize(
    ("heading", "claims", "reason"),
    [
        ("Keycloak", {**KEYCLOAK, "aud": "account"}, "wrong_audience"),
        ("Keycloak", {**KEYCLOAK, "iss": "https://sso.example.com/realms/others"}, "unknown_issuer"),
        ("Keycloak", {**KEYCLOAK, "aud": "desktop", "typ": "ID", "at_hash": "h"}, "token_type"),
        ("Keycloak", {name: value for name, value in KEYCLOAK.items() if name != "sub"}, "missing_claim"),
        ("Microsoft Entra ID", {**ENTRA, "aud": "00000003-0000-0000-c000-000000000000"}, "wrong_audience"),
        ("Microsoft Entra ID", {**ENTRA, "aud": f"api://{APP}"}, "wrong_audience"),
        ("Microsoft Entra ID", {**ENTRA_V1, "aud": APP}, "wrong_audience"),
        ("Microsoft Entra ID", {**ENTRA, "iss": ENTRA["iss"].replace("1111", "0000")}, "unknown_issuer"),
        ("Microsoft Entra ID", {**ENTRA, "iss": "https://login.microsoftonline.com/common/v2.0"}, "unknown_issuer"),
        ("Okta", {**OKTA, "iss": "https://example.okta.com"}, "unknown_issuer"),
        ("Okta", {**OKTA, "aud": "https://example.okta.com"}, "wrong_audience"),
        ("Auth0", {**AUTH0, "iss": "https://example.eu.auth0.com"}, "unknown_issuer"),
        ("Auth0", {**AUTH0, "aud": "https://example.eu.auth0.com/userinfo"}, "wrong_audience"),
        ("Google", {**GOOGLE, "aud": "32555940559.apps.googleusercontent.com"}, "wrong_audience"),
        ("Google", {**GOOGLE, "nonce": "n"}, "token_type"),
    ],
)
async def test_what_is_for_somebody_else_or_of_another_kind_is_refused(
    heading: str, claims: JsonObject, reason: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await accepted(heading, claims)
    assert caught.value.reason == reason


async def test_an_opaque_access_token_of_google_is_refused() -> None:
    authenticate = TokenAuthenticator(settings("Google"), Keys(), lambda: NOW)
    with pytest.raises(Unauthenticated) as caught:
        await authenticate([b"Bearer ya29.a0AfB_byC-1234567890"])
    assert caught.value.reason == "malformed"


async def test_an_opaque_token_is_asked_about_at_its_issuer() -> None:
    async def introspect(token: bytes, *, known: bool = False) -> JsonObject | None:
        return {"active": True, "token_type": "Bearer", **RFC9068}

    authenticate = TokenAuthenticator(settings("Opaque tokens"), Keys(), lambda: NOW, introspect=introspect)
    principal = await authenticate([b"Bearer 2YotnFZFEjr1zCsicMWpAA"])
    assert (principal.subject, principal.client_id, principal.scopes) == ("ada", "agent", {"deploy:read"})


def test_the_example_realm_has_what_the_example_routes_ask_for() -> None:
    folder = Path(__file__).parents[3] / "examples/keycloak"
    realm = json.loads((folder / "realm.json").read_text())
    environ = {
        "KEYCLOAK_ISSUER": "https://sso/realms/agents",
        "AGENTS_RESOURCE": RESOURCE,
        "DEPLOY_URL": "http://d/mcp",
    }
    routes = parse((folder / "routes.yaml").read_text(), source="routes.yaml", environ=environ)
    scopes = {scope["name"]: scope for scope in realm["clientScopes"]}
    assert routes.scopes() <= set(scopes)
    audiences = [
        mapper["config"].get("included.custom.audience") for mapper in scopes["mcp-gateway"]["protocolMappers"]
    ]
    assert "${AGENTS_RESOURCE:https://mcp.example.com/mcp}" in audiences
    clients = {client["clientId"]: client for client in realm["clients"]}
    asking = set(clients["desktop"]["optionalClientScopes"])
    assert routes.initial_scopes() <= asking
    assert "offline_access" in asking
    for client in clients.values():
        assert {*client["defaultClientScopes"], *client["optionalClientScopes"]} <= set(scopes)
        assert "secret" not in client or client["secret"] == "${AGENTS_CLIENT_SECRET}"


def test_every_provider_of_the_table_has_its_settings() -> None:
    linked = re.findall(r"^\| \[(?:any with )?([^\]]+)\]\(#", PAGE, re.MULTILINE)
    assert {name.replace("Entra ID", "Microsoft Entra ID") for name in linked} | {"Opaque tokens"} == set(SETTINGS)
