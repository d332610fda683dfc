"""The backend of a route whose principals connect an account of theirs first."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from gateway.backends import link
from gateway.backends.asks import ASKING_METHODS, undeclared
from gateway.backends.credentials.connecting import Connections
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.route_backend import RouteBackend
from gateway.models import BackendReply, BackendRequest, JsonObject
from gateway.ports import Notify
from gateway.routes import Route

QUESTION = "mcp-gateway-connect"
"""The key of our question among those of a backend."""

WAIT = 20.0
"""Seconds that a call waits for an account whose owner says that it is being connected."""

_LOOK = 0.5


class AccountBackend(RouteBackend):
    """Asks who has no account connected to open a URL, before anything is sent (``client/elicitation``, mode ``url``).

    Other arguments are those of ``RouteBackend``.
    """

    def __init__(self, route: Route, *, tokens: GrantTokens, connections: Connections, **more: Any) -> None:
        super().__init__(route, source=tokens, **more)
        self._route = route.name
        self._tokens = tokens
        self._connections = connections

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``ports.Backend``."""
        answer = (request.answers or {}).get(QUESTION)
        if answer is not None:
            others = {key: value for key, value in (request.answers or {}).items() if key != QUESTION}
            request = replace(request, answers=others or None)
        began = asyncio.get_running_loop().time()
        try:
            await self._connected(request, answer)
        except link.NotConnected:
            return self._ask(request, answer)
        waited = asyncio.get_running_loop().time() - began
        if waited > _LOOK / 2:
            request = replace(request, max_timeout=max(0.001, request.max_timeout - waited))
        return await super().request(request, notify)

    async def _connected(self, request: BackendRequest, answer: Any) -> None:
        """Returns when there is a grant; waits for it where its owner says that it comes."""
        until = asyncio.get_running_loop().time() + (min(WAIT, request.timeout) if _accepted(answer) else 0.0)
        while True:
            try:
                await self._tokens.token(request.principal)
            except link.NotConnected:
                if asyncio.get_running_loop().time() >= until:
                    raise
                await asyncio.sleep(_LOOK)
            else:
                return

    def _ask(self, request: BackendRequest, answer: Any) -> BackendReply:
        """The question, or a refusal that says what to do where it cannot be put or was answered with no."""
        if answer is not None and not _accepted(answer):
            raise link.not_connected(self._route, "The person declined to connect it; ask before you call again.")
        url = self._connections.invite(self._route, request.principal)
        question: JsonObject = {
            "method": "elicitation/create",
            "params": {
                "mode": "url",
                "url": url,
                "message": f"Connect your account for {self._route}: open this page, and check what it says.",
            },
        }
        # What a backend asked before cannot be asked again beside this: its answers would get lost.
        asks = request.method in ASKING_METHODS and request.state is None and not request.answers
        if not asks or undeclared([question], request.capabilities):
            raise link.not_connected(self._route, f"Ask the person to open {url} in a browser, then call again.")
        result: JsonObject = {"resultType": "input_required", "inputRequests": {QUESTION: question}}
        return BackendReply(result, None, 0.0)


def _accepted(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("action") == "accept"
