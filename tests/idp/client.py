"""An MCP client that knows nothing but a URL: the SDK's own, with a browser and a user before it."""

import asyncio
from typing import Any

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from .gateway import ARGUMENTS
from .issuers import REDIRECT, RESOURCE, Keycloak, part_of


class McpClient:
    """Registered as ``client`` beforehand; ``user`` signs in when the browser is opened."""

    def __init__(self, idp: Keycloak, client: str, user: str) -> None:
        self._idp = idp
        self._client = client
        self._user = user
        self._tokens: OAuthToken | None = None
        self._answer: dict[str, str] = {}

    @property
    def scopes(self) -> list[str]:
        """Those of the present token that routes ask for."""
        assert self._tokens is not None
        said: str = part_of(self._tokens.access_token, 1)["scope"]
        return sorted(scope for scope in said.split() if scope.startswith("deploy:"))

    def call(self, tool: str) -> str:
        """The text of a tool's result."""
        return asyncio.run(self._call(tool))

    async def _call(self, tool: str) -> str:
        metadata = OAuthClientMetadata(redirect_uris=[REDIRECT], token_endpoint_auth_method="none")
        auth = OAuthClientProvider(RESOURCE, metadata, self, self._open, self._come_back)
        async with (
            httpx2.AsyncClient(auth=auth, timeout=30, trust_env=False) as http,
            Client(streamable_http_client(RESOURCE, http_client=http)) as client,
        ):
            result = await client.call_tool(tool, ARGUMENTS[tool])
            return str(result.content)

    async def _open(self, url: str) -> None:
        self._answer = await asyncio.to_thread(self._idp.sign_in, url, self._user)

    async def _come_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: self._answer[name] for name in ("code", "state", "iss")})

    # mcp.client.auth.TokenStorage

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        information: dict[str, Any] = {"client_id": self._client, "redirect_uris": [REDIRECT]}
        return OAuthClientInformationFull(**information, token_endpoint_auth_method="none", issuer=self._idp.issuer)

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("the client is registered")
