"""What the suite starts as "the client under test": the SDK's client, alone or with the gateway in between.

python -m tests.conformance.client_driver direct|gateway URL
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from .authorized import authorized, credentials
from .processes import end_in_order, gateway

SECONDS = 20.0
MODERN = "2026-07-28"


async def _elicit(context: Any, params: Any) -> types.ElicitResult:
    """Accepts, with the defaults of the form."""
    properties = getattr(params, "requested_schema", {}).get("properties", {})
    content = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    return types.ElicitResult(action="accept", content=content or {"confirmed": True})


async def _sample(context: Any, params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="Yes."), model="none")


async def _roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


async def _call(client: Client, name: str, arguments: dict[str, Any] | None = None) -> None:
    try:
        await client.call_tool(name, arguments or {})
    except (MCPError, ValidationError) as error:  # the SDK holds some answers of the suites to be invalid
        sys.stderr.write(f"{name}: {error}\n")


async def _names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def _connect_only(client: Client) -> None:
    await _names(client)


async def _add(client: Client) -> None:
    await _names(client)
    await _call(client, "add_numbers", {"a": 5, "b": 3})


async def _metadata(client: Client) -> None:
    await _names(client)
    await _call(client, "any")


async def _call_each(client: Client) -> None:
    for name in await _names(client):
        await _call(client, name)


async def _call_each_with_region(client: Client) -> None:
    for name in await _names(client):
        await _call(client, name, {"region": "us-west1"})


async def _everything(client: Client) -> None:
    await _call_each(client)
    try:
        for resource in (await client.list_resources()).resources:
            await client.read_resource(resource.uri)
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name)
    except MCPError as error:
        sys.stderr.write(f"{error.message}\n")


async def _custom_headers(client: Client) -> None:
    await _names(client)
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await _call(client, call["name"], call["arguments"])


async def _echo_schema(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = tools.pop("json_schema_2020_12_tool").input_schema
    for name in tools:
        await _call(client, name, {"schema": schema})


_DRIVES: dict[str, Callable[[Client], Awaitable[None]]] = {
    "initialize": _connect_only,
    "tools_call": _add,
    "request-metadata": _metadata,
    "sep-2322-client-request-state": _call_each,
    "http-standard-headers": _everything,
    "http-custom-headers": _custom_headers,
    "http-invalid-tool-headers": _call_each_with_region,
    "json-schema-ref-no-deref": _connect_only,
    "json-schema-2020-12-preservation": _echo_schema,
    "elicitation-sep1034-client-defaults": _call_each,
    "sse-retry": _call_each,
    "auth/client-credentials-basic": _call_each,
    "auth/client-credentials-jwt": _call_each,
}


async def drive(url: str, *, direct: bool) -> None:
    """Do at a URL what the scenario of the environment wants to see; ``direct``: with the credentials it gives."""
    modern = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION") == MODERN
    client = Client(
        authorized(url) if direct else url,
        mode="auto" if modern else "legacy",
        elicitation_callback=_elicit,
        sampling_callback=_sample,
        list_roots_callback=_roots,
        read_timeout_seconds=15,
    )
    async with asyncio.timeout(SECONDS), client:
        await _DRIVES[os.environ["MCP_CONFORMANCE_SCENARIO"]](client)


def main(way: str, url: str) -> None:
    """Drive directly, or start a gateway in front of the URL and drive that."""
    end_in_order(28)
    if way == "direct":
        asyncio.run(drive(url, direct=True))
        return
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder), {"mock": url}, *credentials()) as urls:
        asyncio.run(drive(urls["mock"], direct=False))
        sys.stderr.write((Path(folder) / "gateway.log").read_text()[-4000:])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
