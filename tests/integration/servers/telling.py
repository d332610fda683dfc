"""An SDK server over streamable HTTP that describes what it has as ``--words`` says at each listing.

``--words`` names a JSON file: names to descriptions. What has null there is not listed; ``later`` only if it is there.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from mcp.server import MCPServer
from serving import serve

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--words", type=Path, required=True)
options = arguments.parse_args()


def described(listed):
    words = json.loads(options.words.read_text())
    return [
        one.model_copy(update={"description": words.get(one.name, f"About {one.name}.")})
        for one in listed
        if words.get(one.name, "" if one.name != "later" else None) is not None
    ]


class Telling(MCPServer):
    async def list_tools(self):
        return described(await super().list_tools())

    async def list_prompts(self):
        return described(await super().list_prompts())

    async def list_resources(self):
        return described(await super().list_resources())

    async def list_resource_templates(self):
        return described(await super().list_resource_templates())


server = Telling("telling")


@server.tool()
async def act() -> str:
    return "acted"


@server.prompt()
async def plan(goal: str) -> str:
    return f"Plan {goal}"


@server.prompt()
async def review() -> str:
    return "Review it"


@server.prompt()
async def later() -> str:
    return "Later"


@server.resource("memo://today")
async def today() -> str:
    return "today's memo"


@server.resource("memo://rules")
async def rules() -> str:
    return "the rules"


@server.resource("page://{name}")
async def page(name: str) -> str:
    return f"page {name}"


@server.resource("note://{name}")
async def note(name: str) -> str:
    return f"note {name}"


async def main():
    await serve(server.streamable_http_app(), options.port)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
