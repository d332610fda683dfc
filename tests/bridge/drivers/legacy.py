"""A client of the Python SDK 1.x: does the steps of its standard input, and says what each gave and what it heard.

A step is ``[method, …arguments]``. Everything that the server asks is answered. One JSON object on standard output:
``results`` (an answer, or ``{"error": …}``), ``asked`` (methods), ``heard`` (notifications).
"""

import asyncio
import json
import os
import sys

import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl

asked, heard = [], []


async def elicited(context, params):
    asked.append(f"elicitation/create {params.mode}")
    return types.ElicitResult(action="accept", content={"name": "Bob"} if params.mode == "form" else None)


async def sampled(context, params):
    asked.append("sampling/createMessage")
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def rooted(context):
    asked.append("roots/list")
    return types.ListRootsResult(roots=[types.Root(uri="file:///project")])


async def told(message):
    if isinstance(message, types.ServerNotification):
        heard.append(message.model_dump(mode="json", by_alias=True, exclude_none=True))


async def progressed(progress, total, message):
    heard.append({"method": "progress", "params": {"progress": progress}})


async def count(session, what):
    """How often something has happened at the server."""
    stats = await session.call_tool("stats", {})
    return json.loads(stats.content[0].text)[what]


async def until(condition, seconds):
    """Until it holds, at most so long."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - no event tells what another process does
            await asyncio.sleep(0.05)


async def cancelled(session, name):
    """Cancel a call when it runs at the server, and wait until the server knows."""
    begun, ended = await count(session, "begun"), await count(session, "cancelled")

    async def runs():
        return await count(session, "begun") > begun

    async def has_ended():
        return await count(session, "cancelled") > ended

    call = asyncio.ensure_future(session.call_tool(name, {}))
    await asyncio.sleep(0)  # it takes the next id
    number = session._request_id - 1
    await until(runs, 20)
    params = types.CancelledNotificationParams(requestId=number)
    await session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
    await until(has_ended, 20)
    call.cancel()
    raise McpError(types.ErrorData(code=0, message="cancelled"))


async def pause(session, seconds):
    """Until something was heard, at most so long."""

    async def has_heard():
        return bool(heard)

    await until(has_heard, seconds)
    return types.EmptyResult()


STEPS = {
    "list": lambda session, what: getattr(session, f"list_{what}")(),
    "call": lambda session, name, arguments: session.call_tool(name, arguments, progress_callback=progressed),
    "cancel": cancelled,
    "read": lambda session, uri: session.read_resource(AnyUrl(uri)),
    "prompt": lambda session, name, arguments: session.get_prompt(name, arguments),
    "complete": lambda session, name, argument: session.complete(
        types.PromptReference(type="ref/prompt", name=name), argument
    ),
    "subscribe": lambda session, uri: session.subscribe_resource(AnyUrl(uri)),
    "unsubscribe": lambda session, uri: session.unsubscribe_resource(AnyUrl(uri)),
    "level": lambda session, level: session.set_logging_level(level),
    "ping": lambda session: session.send_ping(),
    "roots_changed": lambda session: session.send_roots_list_changed(),
    "pause": pause,
}


async def main() -> None:
    steps, able = json.load(sys.stdin), os.environ["ABLE"] == "1"
    callbacks = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": rooted}
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
    results = []
    async with (
        streamablehttp_client(os.environ["URL_OF_GATEWAY"], headers=headers) as (read, write, _),
        ClientSession(read, write, message_handler=told, **(callbacks if able else {})) as session,
    ):
        opened = await session.initialize()
        for method, *arguments in steps:
            try:
                result = await STEPS[method](session, *arguments)
                results.append(result.model_dump(mode="json", by_alias=True, exclude_none=True) if result else {})
            except McpError as error:
                results.append({"error": error.error.model_dump(mode="json", exclude_none=True)})
    said = {"revision": opened.protocolVersion, "results": results, "asked": asked, "heard": heard}
    sys.stdout.write(json.dumps(said) + "\n")


asyncio.run(main())
