"""The credentials that a scenario gives its client: for the SDK's own client, and for a gateway in its place."""

import json
import os
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client


class _Storage:
    """Keeps nothing beyond the run."""

    tokens: Any = None
    client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


def _given() -> dict[str, str]:
    given: dict[str, str] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    return given if "client_id" in given else {}


def authorized(url: str) -> Any:
    """What the SDK's client connects to: the URL, with the scenario's credentials if it gives any."""
    given = _given()
    if not given:
        return url
    client_id = given["client_id"]
    if "client_secret" in given:
        provider: httpx2.Auth = ClientCredentialsOAuthProvider(url, _Storage(), client_id, given["client_secret"])
    else:
        signing = SignedJWTParameters(
            issuer=client_id,
            subject=client_id,
            signing_algorithm=given["signing_algorithm"],
            signing_key=given["private_key_pem"],
        )
        provider = PrivateKeyJWTOAuthProvider(url, _Storage(), client_id, signing.create_assertion_provider())

    @asynccontextmanager
    async def connected() -> Any:
        async with httpx2.AsyncClient(auth=provider) as http, streamable_http_client(url, http_client=http) as streams:
            yield streams

    return connected()


def credentials() -> tuple[str, dict[str, str]]:
    """The same for a gateway: ``credentials:`` of its route, and the variables with the secrets."""
    given = _given()
    if not given:
        return "", {}
    proof = "client_secret" if "client_secret" in given else "private_key"
    secret = given.get("client_secret") or given["private_key_pem"]
    client = f"client_id: {given['client_id']}, {proof}: '${{CONFORMANCE_SECRET}}', allow_private: true"
    return f"{{client_credentials: {{{client}}}}}", {"CONFORMANCE_SECRET": secret}
