"""How the servers beside this file serve over HTTP. They are scripts, so this folder is where they import from."""

import asyncio
import sys

import uvicorn


async def serve(app, port):
    """Serve ``app`` on ``port``, or on a free one for 0, and say on stdout which it is."""
    http = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="on"))
    task = asyncio.create_task(http.serve())
    while not http.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    sys.stdout.write(f"{http.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await task
