"""A backend that costs next to nothing: MCP on a bare protocol, of 2026-07-28, and of 2025-11-25 with a session for
whoever says ``initialize``. One tool, ``echo``.

``python backend.py PORT``. With ``BENCH_FAULT`` it gives wrong answers, to show that the load generator sees them:
``id``, ``token``, ``error``, ``is_error``, ``status`` or ``close``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httptools
import msgspec
import uvloop

LISTED: dict[str, Any] = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
ANSWERS: dict[str, dict[str, Any]] = {
    "server/discover": LISTED
    | {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "echo", "version": "1"}},
    },
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "echo", "version": "1"},
    },
    "tools/list": LISTED
    | {
        "tools": [
            {
                "name": "echo",
                "description": "Gives back what it got.",
                "inputSchema": {
                    "type": "object",
                    "properties": {"text": {"type": "string", "maxLength": 1000}},
                    "required": ["text"],
                    "additionalProperties": False,
                },
                "annotations": {"readOnlyHint": True},
            }
        ]
    },
}


class Params(msgspec.Struct):
    """What of the parameters is looked at."""

    arguments: dict[str, msgspec.Raw] = {}


class Request(msgspec.Struct):
    """What of a request is looked at."""

    method: str
    id: msgspec.Raw = msgspec.Raw()
    params: Params | None = None


decode = msgspec.json.Decoder(Request).decode
FAULT = os.environ.get("BENCH_FAULT", "")


def answer(body: bytes) -> tuple[bytes, bytes]:
    """Status line, with a header where there is one, and body."""
    request = decode(body)
    request_id = bytes(request.id)
    if not request_id:
        return b"202 Accepted", b""
    if request.method != "tools/call" or request.params is None:
        if (result := ANSWERS.get(request.method)) is not None:
            session = b"\r\nMcp-Session-Id: bench" if request.method == "initialize" else b""
            return b"200 OK" + session, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (
                request_id,
                msgspec.json.encode(result),
            )
        error = b'{"code":-32601,"message":"Method not found"}'
        return b"404 Not Found", b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id, error)
    text = bytes(request.params.arguments["text"])
    if FAULT:
        return wrong(request_id, text)
    return b"200 OK", echo(request_id, text)


def echo(request_id: bytes, text: bytes, is_error: bytes = b"false") -> bytes:
    """The result of the tool; ``text`` is a JSON string."""
    return (
        b'{"jsonrpc":"2.0","id":%b,"result":{"resultType":"complete","content":[{"type":"text","text":%b}],"isError":%b}}'
        % (request_id, text, is_error)
    )


def wrong(request_id: bytes, text: bytes) -> tuple[bytes, bytes]:
    """An answer with the fault that was asked for."""
    error = b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32603,"message":%b}}' % (request_id, text)
    bodies = {
        "id": echo(request_id + b"0", text),
        "token": echo(request_id, b'"another"'),
        "error": error,
        "is_error": echo(request_id, text, b"true"),
        "status": echo(request_id, text),
    }
    return (b"500 Oops" if FAULT == "status" else b"200 OK"), bodies[FAULT]


class Server(asyncio.Protocol):
    """One connection; requests one after the other, as the load generator and proxies send them."""

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        body = b"".join(self.body)
        self.body.clear()
        if FAULT == "close":
            self.transport.close()
            return
        status, content = answer(body) if self.parser.get_method() == b"POST" else (b"405 Method Not Allowed", b"")
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(content), content)
        )


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
