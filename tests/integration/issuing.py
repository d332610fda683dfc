"""An authorization server on the loopback, which tells a backend what to admit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl


class Issuing:
    """``admitted`` are the tokens that a backend started with ``--admits`` takes; each one issued is added.

    ``answers`` are given in turn before tokens are. Tokens are ``<grant>-<number>``.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "admitted"
        self.file.write_text("")
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.admits = True
        self.lifetime = 600
        self.url = ""

    def revoke(self) -> None:
        self.file.write_text("")

    def metadata(self) -> dict[str, Any]:
        return {"issuer": self.url, "token_endpoint": f"{self.url}/token"}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status, value = await self._answer(head, reader)
            body = json.dumps(value).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nSet-Cookie: idp=1\r\nConnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )
            await writer.drain()
        writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader) -> tuple[int, Any]:
        method, path = head.split(" ")[:2]
        if method == "GET":
            return (200, self.metadata()) if path == "/.well-known/oauth-authorization-server" else (404, {})
        lines = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))}
        assert "cookie" not in lines
        self.forms.append(dict(parse_qsl((await reader.readexactly(int(lines["content-length"]))).decode())))
        self.authorizations.append(base64.b64decode(lines.get("authorization", "Basic ").split(" ", 1)[1]).decode())
        if self.answers:
            return self.answers.pop(0)
        grant = self.forms[-1]["grant_type"].rpartition(":")[2].replace("_", "-")
        token = f"{grant}-{len(self.forms)}"
        if self.admits:
            with self.file.open("a") as file:
                file.write(token + "\n")
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}


@asynccontextmanager
async def issuing(folder: Path) -> AsyncIterator[Issuing]:
    issuer = Issuing(folder)
    server = await asyncio.start_server(issuer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()
