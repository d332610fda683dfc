"""The client's side: the MCP endpoint as a plain ASGI callable, everything else as ordinary FastAPI."""
