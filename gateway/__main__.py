"""``python -m gateway`` is the command ``mcp-gateway``."""

from gateway.cli import app

app()
