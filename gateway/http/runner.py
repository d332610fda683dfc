"""Runs the ASGI applications of one process until it is told to stop, and stops without losing a call."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gateway.http.server import GatewayProtocol

KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn's server; signals are the runner's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def hurry(self) -> None:
        """Give running requests no more time: cancelled, not dropped, so that each is still recorded."""
        self.config.timeout_graceful_shutdown = 0
        for task in self.server_state.tasks:
            task.cancel()


class Runner:
    """The listeners of a process and how they end.

    Args:
        draining: called at the first signal: no longer ready, still serving.
        stopping: called after the drain delay: end what would not end by itself.
        reload: called at SIGHUP.
        drain_delay: seconds between the first signal and the end of accepting.
        drain: seconds that running calls then have.
    """

    def __init__(
        self,
        *,
        draining: Callable[[], None],
        stopping: Callable[[], None],
        reload: Callable[[], None],
        drain_delay: float,
        drain: float,
    ) -> None:
        self._draining = draining
        self._stopping = stopping
        self._reload = reload
        self._drain_delay = drain_delay
        self._drain = drain
        self._servers: list[_Server] = []
        self._signalled = False

    async def serve(self, applications: list[tuple[Any, list[socket.socket]]]) -> None:
        """Serve each application on its sockets until a signal ends it; the first one's lifespan is the process's."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        first, *others = [application for application, _ in applications]
        self._servers = [self._server(first, lifespan="on"), *(self._server(app, lifespan="off") for app in others)]
        async with asyncio.TaskGroup() as group:
            for server, (_, sockets) in zip(self._servers, applications, strict=True):
                group.create_task(server.serve(sockets=sockets))

    def stop(self) -> None:
        """First: not ready, then stop accepting, then finish. Again: cancel what still runs."""
        if self._signalled:
            self._exit()
            for server in self._servers:
                server.hurry()
            return
        self._signalled = True
        self._draining()
        asyncio.get_running_loop().call_later(self._drain_delay, self._exit)

    def _exit(self) -> None:
        self._stopping()
        for server in self._servers:
            server.should_exit = True

    def _server(self, app: Any, *, lifespan: Any) -> _Server:
        return _Server(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=GatewayProtocol,
                ws="none",
                lifespan=lifespan,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(self._drain)),
            )
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OSError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - the socket's own API
    return listener
