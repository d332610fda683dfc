"""The steps of a session with clients that stand on the Python SDK 2.x, one JSON line a step."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

STEPS = json.loads(os.environ["STEPS"])
URL = os.environ["URL_OF_GATEWAY"]
HEADERS = {"Authorization": "Bearer " + os.environ["TOKEN"]}
Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


def say(step: str, said: Any, error: bool = False) -> None:
    sys.stdout.write(json.dumps({"step": step, "error": error, "said": said}) + "\n")
    sys.stdout.flush()


@asynccontextmanager
async def openai_agents() -> AsyncIterator[tuple[list[str], Call]]:
    from agents.mcp import MCPServerStreamableHttp

    async with MCPServerStreamableHttp(params={"url": URL, "headers": HEADERS}) as server:
        yield [tool.name for tool in await server.list_tools()], server.call_tool


@asynccontextmanager
async def pydantic_ai() -> AsyncIterator[tuple[list[str], Call]]:
    from pydantic_ai.mcp import MCPToolset

    async with MCPToolset(URL, headers=HEADERS) as toolset:
        yield [tool.name for tool in await toolset.list_tools()], toolset.direct_call_tool


def _text(result: Any) -> tuple[str, bool]:
    dumped = result.model_dump_json() if hasattr(result, "model_dump_json") else json.dumps(result, default=str)
    return dumped, bool(getattr(result, "is_error", getattr(result, "isError", False)))


async def main(kind: str) -> None:
    async with {"openai-agents": openai_agents, "pydantic-ai": pydantic_ai}[kind]() as (names, call):
        say("list", names)
        for step, tool, arguments in STEPS:
            try:
                said, error = _text(await call(tool, arguments))
                say(step, said, error)
            except Exception as error:  # noqa: BLE001 - whatever a client raises is what its caller gets
                say(step, f"{type(error).__name__}: {error}", error=True)


asyncio.run(main(sys.argv[1]))
