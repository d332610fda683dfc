"""An authorization server without a network, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx2

from gateway.backends.credentials.endpoint import TokenEndpoint
from gateway.egress.addresses import Reach
from gateway.egress.documents import document_client
from gateway.routes import parse

BACKEND = "https://tools.example/mcp"
ISSUER = "https://idp.example"
METADATA = f"{ISSUER}/.well-known/oauth-authorization-server"
PROTECTED = "https://tools.example/.well-known/oauth-protected-resource/mcp"


class Provider:
    """``documents`` by URL; what is posted to a token endpoint is answered by ``answers`` in turn, then by tokens."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {METADATA: {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}}
        self.answers: list[tuple[int, Any]] = []
        self.forms: list[dict[str, str]] = []
        self.requests: list[tuple[Reach, httpx2.Request]] = []
        self.challenge: str | None = None
        self.now = 0.0

    @property
    def asked(self) -> list[str]:
        return [str(request.url) for _, request in self.requests]

    def client(self, reach: Reach) -> httpx2.AsyncClient:
        async def answer(request: httpx2.Request) -> httpx2.Response:
            self.requests.append((reach, request))
            status, value = self._answer(request)
            headers = {"www-authenticate": self.challenge} if status == 401 and self.challenge else {}
            return httpx2.Response(status, headers=headers, content=_streamed(json.dumps(value).encode()))

        return document_client(reach, httpx2.MockTransport(answer))

    def _answer(self, request: httpx2.Request) -> tuple[int, Any]:
        if str(request.url) == BACKEND:
            return 401, {}
        if request.method == "GET":
            found = self.documents.get(str(request.url))
            return (200, found) if found is not None else (404, {})
        self.forms.append(dict(parse_qsl(request.content.decode())))
        if self.answers:
            return self.answers.pop(0)
        return 200, {"access_token": f"t{len(self.forms)}", "token_type": "Bearer", "expires_in": 600}

    def endpoint(self, kind: str = "client_credentials", backend_url: str = BACKEND, **fields: str) -> TokenEndpoint:
        """As routes.yaml has it, with ``client_id`` and a secret."""
        given = {"client_id": "gateway", "client_secret": "'${S}'", **fields}
        written = ", ".join(f"{name}: {value}" for name, value in given.items())
        backend = f"{{url: '{backend_url}', credentials: {{{kind}: {{{written}}}}}}}"
        text = (
            "auth: {resource: 'https://g.example', issuers: [{issuer: 'https://i.example'}]}\n"
            f"routes: [{{name: tools, scopes: [], backend: {backend}}}]"
        )
        credentials = parse(text, source="x", environ={"S": "secret"}).routes[0].backend.credentials
        return TokenEndpoint(
            getattr(credentials, kind), backend_url, clients=self.client, clock=lambda: self.now, now=lambda: self.now
        )


async def _streamed(content: bytes) -> AsyncIterator[bytes]:
    yield content
