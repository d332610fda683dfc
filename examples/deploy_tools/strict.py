"""An ``MCPServer`` whose failures an agent can act on, and which takes no argument that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import structlog
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, InputRequiredResult, TextContent
from mcp_types import Tool as ToolDefinition
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import DeployError
from .logs import correlation

log = structlog.stdlib.get_logger("deploy_tools")


class Failure(BaseModel):
    """What an agent reads when a tool failed: the text of an ``isError`` result."""

    model_config = ConfigDict(frozen=True)

    error: str
    retryable: bool
    hint: str

    def result(self) -> CallToolResult:
        """As a tool result. Without structured content: it would have to fit the tool's output schema."""
        return CallToolResult(content=[TextContent(type="text", text=self.model_dump_json())], is_error=True)


class StrictServer(MCPServer[None]):
    """Registers tools as ``MCPServer`` does. Unknown arguments are refused: a misspelt one must not be ignored."""

    async def list_tools(self) -> list[ToolDefinition]:
        """The tools, with schemas that say that nothing else is taken."""
        return [
            tool.model_copy(update={"input_schema": {**tool.input_schema, "additionalProperties": False}})
            for tool in await super().list_tools()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; a failure comes back as a ``Failure``.

        Raises:
            MCPError: there is no such tool (a protocol error, specification ``server/tools``).
        """
        known = {tool.name: tool.input_schema["properties"] for tool in await super().list_tools()}
        if name not in known:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {name}")
        meta = (context.request_context.meta if context else None) or {}
        with structlog.contextvars.bound_contextvars(tool=name, **correlation(meta)):
            started = perf_counter()
            failure = unknown_arguments(arguments, known[name])
            if failure is None:
                try:
                    result = await super().call_tool(name, arguments, context)
                except ToolError as error:
                    failure = explain(error)
                else:
                    log.info("tool_called", duration_ms=elapsed_ms(started))
                    return result
            log.warning("tool_failed", duration_ms=elapsed_ms(started), retryable=failure.retryable)
            return failure.result()


def elapsed_ms(started: float) -> float:
    """Milliseconds since ``started`` (``perf_counter`` seconds)."""
    return round((perf_counter() - started) * 1000, 1)


def unknown_arguments(arguments: Mapping[str, Any], known: Mapping[str, Any]) -> Failure | None:
    """A failure that names the arguments a tool does not take, or None."""
    unknown = sorted(arguments.keys() - known.keys())
    if not unknown:
        return None
    return Failure(
        error=f"Unknown arguments: {', '.join(unknown)}.",
        retryable=False,
        hint=f"This tool takes: {', '.join(known)}.",
    )


def explain(error: ToolError) -> Failure:
    """The failure behind what the SDK raised. A crash is logged here and told to nobody else."""
    cause = error.__cause__
    if isinstance(cause, DeployError):
        return Failure(error=cause.message, retryable=cause.retryable, hint=cause.hint)
    if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in cause.errors())
        return Failure(error=f"Invalid arguments: {problems}.", retryable=False, hint="Correct them and call again.")
    log.error("tool_crashed", exc_info=cause or error)
    return Failure(
        error="The tool failed unexpectedly.", retryable=False, hint="Tell the operators; they have the details."
    )
