"""A server of the Python SDK 1.x, which knows no modern era: ``stdio``, or ``http`` or ``sse`` on a port it prints."""

import asyncio
import sys

import anyio
import mcp.types as types
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.exceptions import McpError, UrlElicitationRequiredError
from pydantic import AnyUrl, BaseModel

server = FastMCP("legacy")
low = server._mcp_server
state = {
    "sessions": 0,
    "begun": 0,
    "cancelled": 0,
    "level": None,
    "subscribed": [],
    "capabilities": {},
    "outside": None,
}
opened = set()
sessions = {}
asking = []


class Form(BaseModel):
    name: str


def seen(ctx):
    session = ctx.request_context.session
    if id(session) not in sessions:
        sessions[id(session)] = session
        state["sessions"] += 1
    known = session.client_params.capabilities if session.client_params else None
    state["capabilities"] = known.model_dump(mode="json", by_alias=True, exclude_none=True) if known else {}
    return session


@server.tool()
async def stats() -> dict:
    return {**state}


@server.tool()
async def echo(text: str) -> str:
    return text


@server.tool()
async def ask(question: str, ctx: Context) -> str:
    seen(ctx)
    answer = await ctx.elicit(question, Form)
    return f"{answer.action} {answer.data.name}" if answer.action == "accept" else answer.action


@server.tool()
async def sample(ctx: Context) -> str:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hello"))
    answer = await seen(ctx).create_message([message], max_tokens=10)
    return answer.content.text


@server.tool()
async def roots(ctx: Context) -> str:
    return " ".join(str(root.uri) for root in (await seen(ctx).list_roots()).roots)


@server.tool()
async def protected(account: str) -> str:
    if account not in opened:
        opened.add(account)
        raise UrlElicitationRequiredError(
            [types.ElicitRequestURLParams(mode="url", message="m", url="https://example.com/a", elicitationId="a")]
        )
    return "inside"


@server.tool()
async def missing() -> str:
    return "see below"


@server.tool()
async def ask_outside(ctx: Context) -> str:
    """Asks on the stream that belongs to no call."""
    session = seen(ctx)

    async def ask_then() -> None:
        request = types.ServerRequest(types.ListRootsRequest(method="roots/list"))
        try:
            await session.send_request(request, types.ListRootsResult)
            state["outside"] = "answered"
        except McpError as error:
            state["outside"] = error.error.message

    asking.append(asyncio.ensure_future(ask_then()))
    return "asked"


@server.tool()
async def ping(ctx: Context) -> str:
    await seen(ctx).send_ping()
    return "pong"


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
    for session in {**sessions, 0: seen(ctx)}.values():
        await session.send_resource_updated(AnyUrl(uri))
        await session.send_tool_list_changed()
    return "announced"


@server.tool()
async def remember(ctx: Context) -> str:
    """State of the session: how often this was called in it."""
    session = seen(ctx)
    session.times = getattr(session, "times", 0) + 1
    return str(session.times)


@server.prompt()
def greet(name: str) -> str:
    return f"Hello {name}"


@server.resource("memo://one")
def one() -> str:
    return "one"


@server.resource("memo://{name}/part")
def part(name: str) -> str:
    return name


@server.completion()
async def complete(ref, argument, context):
    return types.Completion(values=[argument.value + "a", argument.value + "b"], hasMore=False)


@low.subscribe_resource()
async def subscribe(uri):
    session = low.request_context.session
    sessions[id(session)] = session
    state["subscribed"].append(str(uri))


@low.unsubscribe_resource()
async def unsubscribe(uri):
    state["subscribed"].remove(str(uri))


@low.set_logging_level()
async def set_level(level):
    state["level"] = level


call_tool = low.request_handlers[types.CallToolRequest]


async def called(request):
    """Errors of tools are results in this SDK; this one is an error of the protocol."""
    if request.params.name == "missing":
        raise McpError(types.ErrorData(code=-32002, message="Resource not found"))
    return await call_tool(request)


low.request_handlers[types.CallToolRequest] = called
advertised = low.get_capabilities


def capabilities(*arguments):
    """What this SDK can and does not say of itself."""
    found = advertised(*arguments)
    found.tools.listChanged = True
    found.resources.subscribe = True
    return found


low.get_capabilities = capabilities


async def main(transport: str) -> None:
    if transport == "stdio":
        await server.run_stdio_async()
        return
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    http = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    task = asyncio.create_task(http.serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    sys.stdout.write(f"{http.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await task


asyncio.run(main(sys.argv[1]))
