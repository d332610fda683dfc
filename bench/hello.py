"""The least that an ASGI server can do: uvicorn with one raw callable that answers by itself (``hello.py PORT``)."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from backend import answer


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every POST as the backend would."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status, content = answer(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": int(status[:3]), "headers": headers})
    await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
    )
