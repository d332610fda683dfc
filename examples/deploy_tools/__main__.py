"""``python -m examples.deploy_tools --transport stdio|http``."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType

import structlog
import uvicorn

from . import logs
from .server import build_server
from .service import Deployments
from .settings import Settings
from .store import seeded_store
from .strict import StrictServer

log = structlog.stdlib.get_logger("deploy_tools")


def main() -> None:
    """Run until standard input ends (stdio) or SIGTERM or SIGINT comes; then exit with 0."""
    options = _arguments()
    settings = Settings()
    logs.configure(settings.log_level)
    store = seeded_store(latency=settings.latency_ms / 1000)
    store.outage = settings.outage
    server = build_server(Deployments(store))
    if options.transport == "http":
        serve_http(server, options.host, options.port, settings.drain_seconds)
    else:
        serve_stdio(server)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy_tools", description="Deployments as MCP tools.")
    parser.add_argument("--transport", choices=["stdio", "http"], default="stdio")
    parser.add_argument("--host", default="127.0.0.1", help="http: address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="http: port, 0 for a free one (default: %(default)s)")
    return parser.parse_args()


def serve_http(server: StrictServer, host: str, port: int, drain_seconds: int) -> None:
    """Streamable HTTP at ``/mcp``. SIGTERM: take no more, finish running calls, exit."""
    app = server.streamable_http_app(host=host)
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    log.info("listening", host=host, port=listener.getsockname()[1], path="/mcp")
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=drain_seconds)
    # uvicorn raises the signal again when it is done: then this handler makes the exit a clean one.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    uvicorn.Server(config).run(sockets=[listener])


def serve_stdio(server: StrictServer) -> None:
    """Newline-delimited JSON on standard input and output, which carry nothing else."""
    relay = _relay_stdin()

    def end_of_input(_signal: int, _frame: FrameType | None) -> None:
        with suppress(OSError):
            relay.shutdown(socket.SHUT_WR)

    signal.signal(signal.SIGTERM, end_of_input)
    signal.signal(signal.SIGINT, end_of_input)
    server.run("stdio")


def _relay_stdin() -> socket.socket:
    """Put a socket of ours before standard input, so that a signal can end it: a read of a pipe cannot be woken."""
    ours, theirs = socket.socketpair()
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    os.dup2(theirs.fileno(), sys.stdin.fileno())
    theirs.close()

    def copy() -> None:
        with suppress(OSError), ours.makefile("wb", buffering=0) as sink:
            shutil.copyfileobj(source, sink)
            ours.shutdown(socket.SHUT_WR)

    threading.Thread(target=copy, daemon=True, name="stdin").start()
    return ours


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
