"""The fixture server's tools, under the names that the conformance suites call."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import PromptsListChanged, ServerEvent, ToolsListChanged
from mcp.shared.exceptions import MCPError

from .asking import ask, elicitation, modern, roots, sampling
from .content import PROMPTS, WAV, embedded, image, text

Run = Callable[[ServerRequestContext, types.CallToolRequestParams], Awaitable[Any]]
PAUSE = 0.05

TOOLS: list[types.Tool] = []
_RUNS: dict[str, Run] = {}


def _tool(name: str, schema: Mapping[str, Any] | None = None) -> Callable[[Run], Run]:
    """Offer a function as a tool; its docstring is the description, a string or a list of content its result."""

    def offer(run: Run) -> Run:
        description = (run.__doc__ or "").strip()
        TOOLS.append(types.Tool(name=name, description=description, input_schema=dict(schema or {"type": "object"})))
        _RUNS[name] = run
        return run

    return offer


def _string(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string", **more}}, "required": [name]}


async def call(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Run a tool.

    Raises:
        MCPError: -32602 where there is no such tool.
        InputRequired: the client is to be asked first.
    """
    run = _RUNS.get(params.name)
    if run is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}", {"name": params.name})
    said = await run(ctx, params)
    if isinstance(said, types.CallToolResult):
        return said
    return types.CallToolResult(content=[text(said)] if isinstance(said, str) else said)


def input_schema(name: str) -> Mapping[str, Any] | None:
    return next((tool.input_schema for tool in TOOLS if tool.name == name), None)


# Content


@_tool("test_simple_text")
async def _simple_text(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Returns a text."""
    return "This is a simple text response for testing."


@_tool("test_image_content")
async def _image_content(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> list[Any]:
    """Returns a picture."""
    return [image()]


@_tool("test_audio_content")
async def _audio_content(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> list[Any]:
    """Returns a sound."""
    return [types.AudioContent(data=WAV, mime_type="audio/wav")]


@_tool("test_embedded_resource")
async def _embedded_resource(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> list[Any]:
    """Returns an embedded resource."""
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@_tool("test_multiple_content_types")
async def _multiple_content_types(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> list[Any]:
    """Returns a text, a picture and a resource."""
    data = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return [text("Multiple content types test:"), image(), data]


@_tool("test_error_handling")
async def _error_handling(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Always fails."""
    return types.CallToolResult(content=[text("This tool intentionally returns an error for testing")], is_error=True)


_SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@_tool("json_schema_2020_12_tool", _SCHEMA_2020_12)
async def _json_schema(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Has an input schema with the keywords of JSON Schema 2020-12."""
    return json.dumps(params.arguments)


@_tool("test_x_mcp_header", _string("region", **{"x-mcp-header": "Region"}))
async def _x_mcp_header(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Has an argument that is mirrored in a header."""
    return json.dumps(params.arguments)


# Progress, log messages, streams


async def _log(ctx: ServerRequestContext, said: str) -> None:
    await ctx.session.send_log_message("info", said, "fixture", related_request_id=ctx.request_id)


@_tool("test_tool_with_logging")
async def _with_logging(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Sends three log messages while it runs."""
    await _log(ctx, "Tool execution started")
    await asyncio.sleep(PAUSE)
    await _log(ctx, "Tool processing data")
    await asyncio.sleep(PAUSE)
    await _log(ctx, "Tool execution completed")
    return "Logged three messages."


@_tool("test_logging_tool")
async def _logging_tool(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Sends a log message, to those who asked for it."""
    await _log(ctx, "Only for those who asked")
    return "Logged."


@_tool("test_tool_with_progress")
async def _with_progress(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Reports progress three times."""
    token = (ctx.meta or {}).get("progress_token")
    for progress in (0, 50, 100):
        if token is not None:
            await ctx.session.send_progress_notification(token, progress, 100, related_request_id=str(ctx.request_id))
        await asyncio.sleep(PAUSE)
    return "Reported progress."


@_tool("test_reconnection")
async def _reconnection(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Closes its own stream in mid-call, where the transport can resume one."""
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(2 * PAUSE)
    return "Reconnected."


# Questions to the client


def _said(answer: types.ElicitResult) -> str:
    return f"action={answer.action}, content={json.dumps(answer.content)}"


@_tool("test_sampling", _string("prompt"))
async def _sampling(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks the client's model."""
    prompt = str((params.arguments or {}).get("prompt"))
    answers = await ask(ctx, params, {"sample": sampling(prompt)})
    return f"LLM response: {getattr(answers['sample'].content, 'text', '')}"


@_tool("test_elicitation", _string("message"))
async def _elicitation(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks the person for a name and an address."""
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    question = elicitation(str((params.arguments or {}).get("message")), properties, ["username", "email"])
    answers = await ask(ctx, params, {"user": question})
    return f"User response: {_said(answers['user'])}"


@_tool("test_elicitation_sep1034_defaults")
async def _elicitation_defaults(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks with a default for every primitive type."""
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    answers = await ask(ctx, params, {"form": elicitation("Please check these values", properties)})
    return f"Elicitation completed: {_said(answers['form'])}"


def _titled(*titles: str) -> list[dict[str, str]]:
    return [{"const": f"value{number}", "title": title} for number, title in enumerate(titles, 1)]


@_tool("test_elicitation_sep1330_enums")
async def _elicitation_enums(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks with every kind of choice."""
    options = ["option1", "option2", "option3"]
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": _titled("First Option", "Second Option", "Third Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": _titled("First Choice", "Second Choice", "Third Choice")},
        },
    }
    answers = await ask(ctx, params, {"form": elicitation("Please choose", properties)})
    return f"Elicitation completed: {_said(answers['form'])}"


@_tool("test_streaming_elicitation")
async def _streaming_elicitation(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks the person on whatever the call's stream allows."""
    answers = await ask(ctx, params, {"form": elicitation("Go on?", {"ok": {"type": "boolean"}})})
    return _said(answers["form"])


@_tool("test_missing_capability")
async def _missing_capability(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Needs the client's model, whether it has one or not."""
    declared = ctx.session.client_capabilities
    if modern(ctx) and (declared is None or declared.sampling is None):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs the sampling capability.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    await ask(ctx, params, {"sample": sampling("Are you there?")})
    return "It is there."


_NAME = elicitation("What is your name?", {"name": {"type": "string"}}, ["name"])
_CONFIRM = elicitation("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])


@_tool("test_input_required_result_elicitation")
async def _needs_elicitation(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Greets by a name that it has to ask for."""
    answers = await ask(ctx, params, {"user_name": _NAME})
    return f"Hello, {(answers['user_name'].content or {}).get('name')}!"


@_tool("test_input_required_result_sampling")
async def _needs_sampling(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Passes on what the client's model says."""
    answers = await ask(ctx, params, {"capital_question": sampling("What is the capital of France?")})
    return str(getattr(answers["capital_question"].content, "text", ""))


@_tool("test_input_required_result_list_roots")
async def _needs_roots(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Counts the client's roots."""
    answers = await ask(ctx, params, {"client_roots": roots()})
    return "Roots: " + ", ".join(str(root.uri) for root in answers["client_roots"].roots)


@_tool("test_input_required_result_request_state")
async def _needs_state(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks, and wants its state back."""
    await ask(ctx, params, {"confirm": _CONFIRM}, state="confirming")
    return "state-ok"


@_tool("test_input_required_result_tampered_state")
async def _needs_untampered_state(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks, and wants its state back untouched."""
    await ask(ctx, params, {"confirm": _CONFIRM}, state="protected")
    return "state-ok"


@_tool("test_input_required_result_multiple_inputs")
async def _needs_several(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks the person, the model and for the roots at once."""
    requests = {"user_name": _NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": roots()}
    answers = await ask(ctx, params, requests, state="several")
    return f"Got {len(answers)} answers."


@_tool("test_input_required_result_multi_round")
async def _needs_rounds(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks twice, one after the other."""
    first = elicitation("Step 1: What is your name?", {"name": {"type": "string"}}, ["name"])
    second = elicitation("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])
    if params.request_state != "round-2":
        await ask(ctx, params, {"step1": first}, state="round-1")
        params = params.model_copy(update={"input_responses": None})
    await ask(ctx, params, {"step2": second}, state="round-2")
    return "Both rounds are done."


@_tool("test_input_required_result_capabilities")
async def _needs_what_there_is(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
    """Asks only in the ways that the client has declared."""
    declared = ctx.session.client_capabilities or types.ClientCapabilities()
    requests: dict[str, Any] = {}
    if declared.elicitation is not None:
        requests["user_name"] = _NAME
    if declared.sampling is not None:
        requests["greeting"] = sampling("Generate a greeting", 50)
    if declared.roots is not None:
        requests["client_roots"] = roots()
    answers = await ask(ctx, params, requests) if requests else {}
    return f"Got {len(answers)} answers."


# Changes


class Changes:
    """Changes the lists, and tells everybody: listening streams, and the sessions that were opened."""

    def __init__(self, publish: Callable[[ServerEvent], Awaitable[None]]) -> None:
        self._publish = publish
        self.sessions: list[Any] = []

    async def tools(self) -> None:
        _toggle(TOOLS, _EXTRA_TOOL)
        await self._publish(ToolsListChanged())
        for session in self.sessions:
            await session.send_tool_list_changed()

    async def prompts(self) -> None:
        _toggle(PROMPTS, _EXTRA_PROMPT)
        await self._publish(PromptsListChanged())
        for session in self.sessions:
            await session.send_prompt_list_changed()


_EXTRA_TOOL = types.Tool(name="test_extra", description="Comes and goes", input_schema={"type": "object"})
_EXTRA_PROMPT = types.Prompt(name="test_extra", description="Comes and goes")


def _toggle(offered: list[Any], extra: Any) -> None:
    if extra in offered:
        offered.remove(extra)
    else:
        offered.append(extra)


def offer_changes(changes: Changes) -> None:
    """Offer the tools that change a list."""

    @_tool("test_trigger_tool_change")
    async def _tool_change(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
        """Adds a tool, or takes it away again."""
        await changes.tools()
        return "Changed."

    @_tool("test_trigger_prompt_change")
    async def _prompt_change(ctx: ServerRequestContext, params: types.CallToolRequestParams) -> str:
        """Adds a prompt, or takes it away again."""
        await changes.prompts()
        return "Changed."
