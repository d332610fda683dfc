"""The fixture server of the conformance suites, both eras on one port, or only one of them.

    python -m tests.conformance.server [--port 0] [--era both|legacy|modern]

It prints its port. ``--era legacy`` answers a modern request as a server of 2025 does; ``--era modern`` answers
``initialize`` with the versions that it serves (2026-07-28, ``basic/versioning``).
"""

import argparse
import asyncio
import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from . import content, tools
from .asking import InputRequired, ask, elicitation

Scope = dict[str, Any]


class Fixture(Server[Any]):
    """Declares to legacy clients, too, that its lists change."""

    def create_initialization_options(self, *arguments: Any, **options: Any) -> InitializationOptions:
        changing = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(changing)


class Events(EventStore):
    """Keeps what was sent on legacy streams, so that a client can resume one."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdigit() or not 0 < int(last_event_id) <= len(self._events):
            return None
        stream_id = self._events[int(last_event_id) - 1][0]
        for number, (stream, message) in enumerate(self._events, 1):
            if number > int(last_event_id) and stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


async def _list_tools(ctx: ServerRequestContext, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=tools.TOOLS)


async def _call_tool(
    ctx: ServerRequestContext, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    try:
        return await tools.call(ctx, params)
    except InputRequired as needed:
        return needed.result


async def _list_resources(ctx: ServerRequestContext, params: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=content.RESOURCES)


async def _list_templates(ctx: ServerRequestContext, params: Any) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(resource_templates=content.TEMPLATES)


async def _read_resource(
    ctx: ServerRequestContext, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    found = content.read(str(params.uri))
    if found is None:
        code = types.INVALID_PARAMS if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else -32002
        raise MCPError(code, "Resource not found", {"uri": str(params.uri)})
    return types.ReadResourceResult(contents=[found])


async def _accept(ctx: ServerRequestContext, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def _list_prompts(ctx: ServerRequestContext, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=content.PROMPTS)


async def _get_prompt(
    ctx: ServerRequestContext, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    parts = content.messages(params.name, params.arguments or {})
    if params.name == "test_input_required_result_prompt":
        question = elicitation("What context should the prompt use?", {"context": {"type": "string"}}, ["context"])
        try:
            answers = await ask(ctx, params, {"user_context": question})
        except InputRequired as needed:
            return needed.result
        parts = [content.text(f"Use this context: {answers['user_context'].content}")]
    if parts is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}", {"name": params.name})
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=part) for part in parts])


async def _complete(ctx: ServerRequestContext, params: types.CompleteRequestParams) -> types.CompleteResult:
    words = [word for word in ("test", "testing", "paris", "park") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=words, total=len(words), has_more=False))


def build() -> Fixture:
    """The server with everything that the suites call."""
    bus = InMemorySubscriptionBus()
    changes = tools.Changes(bus.publish)
    tools.offer_changes(changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        server = Fixture(
            "conformance-fixture",
            version="1.0.0",
            get_tool_input_schema=tools.input_schema,
            on_list_tools=_list_tools,
            on_call_tool=_call_tool,
            on_list_resources=_list_resources,
            on_list_resource_templates=_list_templates,
            on_read_resource=_read_resource,
            on_subscribe_resource=_accept,
            on_unsubscribe_resource=_accept,
            on_subscriptions_listen=ListenHandler(bus),
            on_list_prompts=_list_prompts,
            on_get_prompt=_get_prompt,
            on_completion=_complete,
            on_set_logging_level=_accept,
        )

    async def remember(ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
        if ctx.method == "initialize":
            changes.sessions.append(ctx.session)
        return await call_next(ctx)

    server.middleware.append(remember)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
    return server


class Pinned:
    """Lets only one era in."""

    def __init__(self, app: Any, era: str) -> None:
        self._app = app
        self._era = era

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._era != "both":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            version = headers.get("mcp-protocol-version")
            if (version in MODERN_PROTOCOL_VERSIONS) != (self._era == "modern"):
                await (self._legacy_no(send) if self._era == "legacy" else self._modern_no(scope, send, version))
                return
        await self._app(scope, receive, send)

    async def _legacy_no(self, send: Any) -> None:
        error = {"code": -32000, "message": "Bad Request: Unsupported protocol version"}
        await _answer(send, 400, {"jsonrpc": "2.0", "id": None, "error": error})

    async def _modern_no(self, scope: Scope, send: Any, version: str | None) -> None:
        if scope["method"] != "POST":
            await _answer(send, 405, {})
            return
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version or ""}
        error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
        await _answer(send, 400, {"jsonrpc": "2.0", "id": None, "error": error})


async def _answer(send: Any, status: int, body: Mapping[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def serve(port: int, era: str) -> None:
    """Serve until the process is ended; prints the port once it is open."""
    app = build().streamable_http_app(event_store=Events(), retry_interval=100)
    config = uvicorn.Config(Pinned(app, era), host="127.0.0.1", port=port, http="h11", log_level="error")
    http = uvicorn.Server(config)
    task = asyncio.create_task(http.serve())
    while not http.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if http.started:
        sys.stdout.write(f"{http.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
    await task


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="The fixture server of the conformance suites")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    asyncio.run(serve(options.port, options.era))
