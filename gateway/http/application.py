"""Which ASGI callable serves which path, decided before any framework sees the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.http.endpoint import PATH

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
_BELOW = PATH + "/"
_CONNECT = "/connect/"


class Application:
    """``/mcp*`` to the endpoint, ``/.well-known/*`` to the metadata, ``/connect/*`` to its pages, the rest to the
    operations.

    Args:
        operations: None where they have a port of their own; then nothing else exists here.
        started: awaited once before the first request.
        stopped: awaited once after the last.
    """

    def __init__(
        self,
        endpoint: Asgi,
        metadata: Asgi,
        operations: Asgi | None,
        *,
        connect: Asgi,
        started: Callable[[], Awaitable[None]],
        stopped: Callable[[], Awaitable[None]],
    ) -> None:
        self._endpoint = endpoint
        self._metadata = metadata
        self._operations = operations or metadata
        self._connect = connect
        self._started = started
        self._stopped = stopped

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one ASGI scope, of HTTP or the lifespan."""
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        path = scope["path"]
        if path == PATH or (path.startswith(_BELOW) and "/" not in path[len(_BELOW) :]):
            return self._endpoint(scope, receive, send)
        if path.startswith("/.well-known/"):
            return self._metadata(scope, receive, send)
        if path.startswith(_CONNECT):
            return self._connect(scope, receive, send)
        return self._operations(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await self._started()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stopped()
        await send({"type": "lifespan.shutdown.complete"})
