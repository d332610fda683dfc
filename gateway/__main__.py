"""``python -m gateway`` and the command ``mcp-gateway``."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run a command. As process 1 of a container nobody else answers a signal that comes before there is a server."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    from gateway.cli import app

    app()


if __name__ == "__main__":
    main()
