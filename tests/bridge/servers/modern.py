"""A server of the Python SDK 2.x over HTTP on a port that it prints; what it asks it asks in the modern way."""

import asyncio
import sys

import anyio
import mcp_types as types
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("modern")
state = {"begun": 0, "cancelled": 0}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
FORM = types.ElicitRequest(params=types.ElicitRequestFormParams(message="who?", requested_schema=SCHEMA))
VISIT = types.ElicitRequest(params=types.ElicitRequestURLParams(message="open", url="https://example.com/x"))
SAMPLE = types.CreateMessageRequest(
    params=types.CreateMessageRequestParams(
        messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hello"))],
        max_tokens=10,
    )
)


@server.tool()
async def stats(ctx: Context) -> dict:
    known = ctx.request_context.session.client_capabilities
    return {**state, "capabilities": known.model_dump(mode="json", by_alias=True, exclude_none=True) if known else {}}


@server.tool()
async def ask(ctx: Context) -> str | types.InputRequiredResult:
    if not ctx.input_responses:
        return types.InputRequiredResult(input_requests={"who": FORM}, request_state="one")
    return f"{ctx.input_responses['who'].content['name']} {ctx.request_state}"


@server.tool()
async def ask_everything(ctx: Context) -> str | types.InputRequiredResult:
    if not ctx.input_responses:
        wanted = {"text": SAMPLE, "where": types.ListRootsRequest(), "there": VISIT}
        return types.InputRequiredResult(input_requests=wanted)
    given = ctx.input_responses
    return f"{given['text'].content.text} {given['where'].roots[0].uri} {given['there'].action}"


@server.tool()
async def later(ctx: Context) -> str | types.InputRequiredResult:
    """Has nothing to ask and wants to be called again."""
    return "now" if ctx.request_state else types.InputRequiredResult(request_state="again")


@server.tool()
async def array() -> types.CallToolResult:
    text = types.TextContent(type="text", text="[1, 2]")
    return types.CallToolResult(content=[text], structured_content=[1, 2])


@server.tool()
async def steps(ctx: Context) -> str:
    for step in range(3):
        await ctx.report_progress(step, 3)
    return "done"


@server.tool()
async def hang() -> str:
    state["begun"] += 1
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        state["cancelled"] += 1
        raise
    return "never"


@server.tool()
async def chat(ctx: Context) -> str:
    for level in ("debug", "info", "error"):
        await ctx.log(level, level)
    return "said"


@server.tool()
async def announce(uri: str, ctx: Context) -> str:
    await ctx.notify_resource_updated(uri)
    await ctx.notify_tools_changed()
    return "announced"


@server.prompt()
def greet(name: str) -> str:
    return f"Hello {name}"


@server.resource("memo://one")
def one() -> str:
    return "one"


@server.completion()
async def complete(ref, argument, context):
    return types.Completion(values=[argument.value + "a"])


async def set_level(ctx, params):
    return types.EmptyResult()


# What makes this SDK say that it sends log messages.
server._lowlevel_server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)


class Front:
    """Refuses what is not modern."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"mcp-protocol-version") != b"2026-07-28":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, send)


async def main():
    app = Front(server.streamable_http_app())
    http = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    task = asyncio.create_task(http.serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    sys.stdout.write(f"{http.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await task


asyncio.run(main())
