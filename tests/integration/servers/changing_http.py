"""An SDK server whose lists and resources change when its tools are told to. ``--deaf`` serves no subscriptions."""

import argparse
import asyncio
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.subscriptions import InMemorySubscriptionBus
from serving import serve

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, default=0)
arguments.add_argument("--deaf", action="store_true")
options = arguments.parse_args()


class Bus(InMemorySubscriptionBus):
    """Knows how many streams there are and were."""

    opened = 0

    def subscribe(self, listener):
        self.opened += 1
        return super().subscribe(listener)


bus = Bus()
server = MCPServer("changing", subscriptions=False if options.deaf else bus)


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    async def grown() -> str:
        return name

    server.add_tool(grown, name=name)
    await ctx.notify_tools_changed()
    return "grown"


@server.tool()
async def say(kind: str, ctx: Context) -> str:
    """Say that a list changed though it did not."""
    await {"tools": ctx.notify_tools_changed, "prompts": ctx.notify_prompts_changed}[kind]()
    return "said"


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    await ctx.notify_resource_updated(uri)
    return "touched"


@server.tool()
async def streams() -> str:
    return f"{len(bus._listeners)} {bus.opened}"


@server.prompt()
async def greet(name: str) -> str:
    return f"Greet {name}"


@server.resource("note://one")
async def one() -> str:
    return "one"


@server.resource("note://{name}/page")
async def page(name: str) -> str:
    return name


async def main():
    await serve(server.streamable_http_app(), options.port)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
