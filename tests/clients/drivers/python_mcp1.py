"""The steps of a session with the Python SDK 1.x (``mcp``) or with langchain's adapters, one JSON line a step."""

import asyncio
import json
import os
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

STEPS = json.loads(os.environ["STEPS"])
URL = os.environ["URL_OF_GATEWAY"]
HEADERS = {"Authorization": "Bearer " + os.environ["TOKEN"]}


def say(step: str, said: Any, error: bool = False) -> None:
    sys.stdout.write(json.dumps({"step": step, "error": error, "said": said}) + "\n")
    sys.stdout.flush()


def words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " ".join(map(words, error.exceptions))
    return f"{type(error).__name__}: {error}"


def session(kind: str) -> AbstractAsyncContextManager[Any]:
    if kind == "langchain":
        from langchain_mcp_adapters.client import MultiServerMCPClient

        connection: Any = {"transport": "streamable_http", "url": URL, "headers": HEADERS}
        return MultiServerMCPClient({"gateway": connection}).session("gateway")
    return _sdk()


def _sdk() -> AbstractAsyncContextManager[Any]:
    from contextlib import asynccontextmanager

    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    @asynccontextmanager
    async def opened() -> Any:
        async with (
            streamablehttp_client(URL, headers=HEADERS) as (read, write, _),
            ClientSession(read, write) as one,
        ):
            await one.initialize()
            yield one

    return opened()


async def tools(kind: str, one: Any) -> list[str]:
    if kind == "langchain":
        from langchain_mcp_adapters.tools import load_mcp_tools

        return [tool.name for tool in await load_mcp_tools(one)]
    return [tool.name for tool in (await one.list_tools()).tools]


async def main(kind: str) -> None:
    async with session(kind) as one:
        say("list", await tools(kind, one))
        for step, tool, arguments in STEPS[:-1]:
            result = await one.call_tool(tool, arguments)
            say(step, result.model_dump_json(), bool(result.isError))
    # This SDK leaves its connection on an HTTP error, so the step that gets one has a connection of its own.
    step, tool, arguments = STEPS[-1]
    try:
        async with session(kind) as one:
            result = await one.call_tool(tool, arguments)
            say(step, result.model_dump_json(), bool(result.isError))
    except BaseException as error:  # noqa: BLE001 - whatever a client raises is what its caller gets
        say(step, words(error), error=True)


asyncio.run(main(sys.argv[1]))
