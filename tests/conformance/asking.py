"""How the fixture's tools ask the client in mid-call, in the way of the era that the call came in.

A tool is written once: ``await ask(...)`` returns the answers. In the modern era the call ends with ``input_required``
instead and is repeated by the client with the answers in it; in a legacy session the client is asked on the stream.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

RESULTS = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


class InputRequired(Exception):  # noqa: N818 - a way out, not an error
    """The modern era's answer to a call that needs the client first."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        super().__init__("input required")
        self.result = result


def modern(ctx: ServerRequestContext) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def elicitation(message: str, properties: Mapping[str, Any], required: list[str] | None = None) -> types.ElicitRequest:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def roots() -> types.ListRootsRequest:
    return types.ListRootsRequest()


async def ask(
    ctx: ServerRequestContext,
    params: types.InputResponseRequestParams,
    requests: Mapping[str, Any],
    *,
    state: str | None = None,
) -> dict[str, Any]:
    """The client's answer to each request.

    Args:
        ctx: of the call.
        params: of the call; in a repeated modern call they hold the answers.
        requests: what to ask, by key.
        state: also a ``requestState`` that must come back with the answers.

    Raises:
        InputRequired: modern era, and an answer or the state is missing.
    """
    if not modern(ctx):
        found = await asyncio.gather(*(_ask_on_stream(ctx, request) for request in requests.values()))
        return dict(zip(requests, found, strict=True))
    answers = params.input_responses or {}
    if all(key in answers for key in requests) and params.request_state == state:
        return {key: answers[key] for key in requests}
    raise InputRequired(types.InputRequiredResult(input_requests=dict(requests), request_state=state))


async def _ask_on_stream(ctx: ServerRequestContext, request: Any) -> Any:
    metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
    return await ctx.session.send_request(request, RESULTS[request.method], metadata=metadata)
