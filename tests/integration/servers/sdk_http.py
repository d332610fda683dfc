"""An SDK server over streamable HTTP on a port that it prints. ``--legacy-only`` answers as a server of 2025 would,
``--sse`` as one of 2024. ``--admits`` names a file with the tokens that are accepted, one a line.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from serving import serve

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--legacy-only", action="store_true")
arguments.add_argument("--json", action="store_true")
arguments.add_argument("--sse", action="store_true")
arguments.add_argument("--path", default="/mcp")
arguments.add_argument("--admits", type=Path)
options = arguments.parse_args()
server = MCPServer("sdk")
state = {"sessions": 0, "cancelled": 0, "running": 0, "headers": {}, "seen": []}


@server.tool()
async def echo(text: str) -> str:
    return text


@server.tool()
async def stats() -> dict:
    return state


@server.tool()
async def hang() -> str:
    state["running"] += 1
    try:
        await asyncio.Event().wait()
    except anyio.get_cancelled_exc_class():
        state["cancelled"] += 1
        raise
    finally:
        state["running"] -= 1
    return "never"


@server.tool()
async def large(size: int) -> str:
    return "y" * size


@server.tool()
async def steps(count: int, pause: float, ctx: Context) -> str:
    for step in range(count):
        await asyncio.sleep(pause)
        await ctx.report_progress(step, count)
    return "done"


@server.tool()
async def die() -> str:
    os._exit(3)


def admitted(headers):
    return headers.get("authorization", "").removeprefix("Bearer ") in options.admits.read_text().split()


class Front:
    """Counts, keeps the headers of the last request, and refuses the modern era where it is told to."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            state["headers"] = headers
            state["seen"].append([scope["method"], headers.get("authorization", ""), headers.get("cookie", "")])
            if options.admits is not None and not admitted(headers):
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
                return
            if scope["method"] == "POST" and "mcp-session-id" not in headers and "mcp-protocol-version" not in headers:
                state["sessions"] += 1
            if options.legacy_only and headers.get("mcp-protocol-version") == "2026-07-28":
                await send({"type": "http.response.start", "status": 400, "headers": []})
                await send({"type": "http.response.body", "body": b"Bad Request: no session"})
                return
        await self.app(scope, receive, send)


async def main():
    streamable = {"json_response": options.json, "streamable_http_path": options.path}
    app = server.sse_app() if options.sse else server.streamable_http_app(**streamable)
    await serve(Front(app), options.port)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
