"""An SDK server whose tools ask the client in mid-call. ``--stdio``, or HTTP on a port that it prints: streamable, or
with ``--sse`` the transport before it.

``--modern`` leaves the modern era on; without it the server answers as one of 2025. Its resources are of ``--scheme``.
"""

import argparse
import asyncio
import os
import sys

import anyio
import mcp_types as types
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from pydantic import BaseModel
from serving import serve

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--stdio", action="store_true")
arguments.add_argument("--sse", action="store_true")
arguments.add_argument("--modern", action="store_true")
arguments.add_argument("--scheme", default="memo")
options = arguments.parse_args()


class Asking(MCPServer):
    async def list_resources(self):
        return [one for one in await super().list_resources() if one.name != "unlisted"]


server = Asking("asking")
state = {"ran": 0, "cancelled": 0, "running": 0, "level": None, "subscribed": [], "opened": False, "capabilities": {}}
sessions = []


class Form(BaseModel):
    name: str


def entered(ctx):
    state["ran"] += 1
    state["running"] += 1
    known = ctx.request_context.session.client_capabilities
    state["capabilities"] = known.model_dump(mode="json", by_alias=True, exclude_none=True) if known else {}


class Counted:
    def __init__(self, ctx):
        entered(ctx)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, trace):
        state["running"] -= 1
        if kind is not None and issubclass(kind, anyio.get_cancelled_exc_class()):
            state["cancelled"] += 1


def told(result):
    return f"{result.action} {result.data.name}" if result.action == "accept" else result.action


@server.tool()
async def stats() -> dict:
    return state


@server.tool()
async def declared(ctx: Context) -> dict:
    known = ctx.request_context.session.client_capabilities
    return known.model_dump(mode="json", by_alias=True, exclude_none=True) if known else {}


@server.tool()
async def ask(question: str, ctx: Context) -> str:
    async with Counted(ctx):
        return told(await ctx.elicit(question, Form))


@server.tool()
async def twice(ctx: Context) -> str:
    async with Counted(ctx):
        first = await ctx.elicit("first", Form)
        return f"{told(first)}, {told(await ctx.elicit('second', Form))}"


@server.tool()
async def together(ctx: Context) -> str:
    async with Counted(ctx):
        return ", ".join(map(told, await asyncio.gather(ctx.elicit("one", Form), ctx.elicit("two", Form))))


@server.tool()
async def slow_ask(before: float, after: float, ctx: Context) -> str:
    async with Counted(ctx):
        await asyncio.sleep(before)
        said = told(await ctx.elicit("slow", Form))
        await asyncio.sleep(after)
        return said


@server.tool()
async def ask_and_work(question: str, ctx: Context) -> str:
    said = told(await ctx.elicit(question, Form))
    for step in range(3):
        await ctx.report_progress(step, 3)
    return said


@server.tool()
async def link(uri: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.ResourceLink(type="resource_link", name="n", uri=uri)])


@server.tool()
async def impatient(ctx: Context) -> str:
    """Withdraws its question, then asks another."""
    async with Counted(ctx):
        try:
            async with asyncio.timeout(0.2):
                await ctx.elicit("withdrawn", Form)
        except TimeoutError:
            return "no answer in time"
        return "answered"


@server.tool()
async def sample(ctx: Context) -> str:
    async with Counted(ctx):
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hello"))
        answer = await ctx.request_context.session.create_message([message], max_tokens=10)
        return answer.content.text


@server.tool()
async def roots(ctx: Context) -> str:
    async with Counted(ctx):
        return " ".join(str(root.uri) for root in (await ctx.request_context.session.list_roots()).roots)


@server.tool()
async def visit(ctx: Context) -> str:
    async with Counted(ctx):
        return (await ctx.elicit_url("open it", "https://example.com/x", "id-1")).action


@server.tool()
async def protected(ctx: Context) -> str:
    async with Counted(ctx):
        if not state["opened"]:
            state["opened"] = True
            wanted = types.ElicitRequestURLParams(message="m", url="https://example.com/a", elicitation_id="a")
            raise UrlElicitationRequiredError([wanted])
        return "inside"


@server.tool()
async def missing() -> str:
    raise MCPError(-32002, "Resource not found", {"uri": "x"})


@server.tool()
async def chat(ctx: Context) -> str:
    for level in ("debug", "info", "error"):
        await ctx.log(level, level)
    return "said"


@server.tool()
async def announce(uri: str, ctx: Context) -> str:
    for session in sessions:
        await session.send_resource_updated(uri)
        await session.send_tool_list_changed()
    return "announced"


@server.tool()
async def ask_modern(ctx: Context) -> str | types.InputRequiredResult:
    """Asks in the way of 2026-07-28."""
    if not ctx.input_responses:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        question = types.ElicitRequest(params=types.ElicitRequestFormParams(message="who?", requested_schema=schema))
        return types.InputRequiredResult(input_requests={"who": question}, request_state="state")
    return ctx.input_responses["who"].content["name"]


@server.tool()
async def tell(uri: str, ctx: Context) -> str:
    await ctx.notify_resource_updated(uri)
    await ctx.notify_tools_changed()
    return "told"


@server.tool()
async def hang(ctx: Context) -> str:
    async with Counted(ctx):
        await asyncio.Event().wait()
    return "never"


@server.tool()
async def die() -> str:
    os._exit(3)


@server.prompt()
def greet(name: str) -> str:
    return f"Hello {name}"


@server.resource(f"{options.scheme}://one")
def one() -> str:
    return "one"


@server.resource(f"{options.scheme}://unlisted")
def unlisted() -> str:
    return f"unlisted at {options.scheme}"


@server.resource(f"{options.scheme}://{{name}}/part")
def part(name: str) -> str:
    return name


@server.completion()
async def complete(ref, argument, context):
    named = ref.name if ref.type == "ref/prompt" else ref.uri
    return types.Completion(values=[f"{named} {argument.value} at {options.scheme}"])


async def subscribe(ctx, params):
    sessions.append(ctx.session)
    state["subscribed"].append(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx, params):
    state["subscribed"].remove(str(params.uri))
    return types.EmptyResult()


async def set_level(ctx, params):
    state["level"] = params.level
    return types.EmptyResult()


handlers = server._lowlevel_server
handlers.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
handlers.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)
handlers.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)


class Front:
    """Refuses the modern era where it is told to."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        if not options.modern and headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"Bad Request: no session"})
            return
        await self.app(scope, receive, send)


async def main():
    if options.stdio:
        await server.run_stdio_async()
        return
    await serve(Front(server.sse_app() if options.sse else server.streamable_http_app()), options.port)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
