"""Messages between the processes of a gateway, where there is only one: every address but its own is nobody's."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from gateway.relay import RelayLost

log = logging.getLogger(__name__)

MOST_RUNNING = 1_000
"""Handlers that may run at once."""

Handler = Callable[[bytes], Awaitable[bytes]]


class MemoryRelay:
    """``relay.Relay`` for one process; the local half of ``RedisRelay``. Runs at most ``most`` handlers at once."""

    def __init__(self, *, most: int = MOST_RUNNING) -> None:
        self._here = secrets.token_hex(10)
        self._most = most
        self._handlers: dict[str, Handler] = {}
        self._running: set[asyncio.Task[bytes]] = set()

    @property
    def here(self) -> str:
        """This process's address."""
        return self._here

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return len(self._running)

    async def start(self) -> None:
        """Nothing has to be started; for the symmetry with ``RedisRelay``."""

    async def aclose(self) -> None:
        """Cancel every handler, wait until they have ended, and start no more."""
        self._most = 0
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def serve(self, topic: str, handler: Handler) -> None:
        """Handle a topic here."""
        self._handlers[topic] = handler

    async def ask(self, there: str, topic: str, payload: bytes, seconds: float) -> bytes:
        """The handler's answer.

        Raises:
            RelayLost: another address, a failed handler, or no answer within ``seconds``.
        """
        if there != self._here:
            raise RelayLost("nobody has this address", delivered=False)
        task = self.begin(topic, payload)
        try:
            await asyncio.wait([task], timeout=seconds)
        finally:
            task.cancel()
        return answer_of(task)

    def tell(self, there: str, topic: str, payload: bytes) -> None:
        """Start the handler, if this is the address."""
        if there == self._here:
            self.publish(topic, payload)

    def publish(self, topic: str, payload: bytes, *, here: bool = True) -> None:
        """Start the handler, unless only others are meant."""
        if not here:
            return
        try:
            self.begin(topic, payload)
        except RelayLost as lost:
            log.warning("a message about %s is dropped: %s", topic, lost)

    def begin(self, topic: str, payload: bytes) -> asyncio.Task[bytes]:
        """Start the handler; ``answer_of`` reads the task when it is done.

        Raises:
            RelayLost: nobody serves the topic, or too many handlers run.
        """
        handler = self._handlers.get(topic)
        if handler is None:
            raise RelayLost("nobody serves this topic", delivered=False)
        if len(self._running) >= self._most:
            raise RelayLost("too many relayed messages are being handled", delivered=False)

        async def handled() -> bytes:
            return await handler(payload)

        task = asyncio.get_running_loop().create_task(handled(), name=f"relay {topic}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a relayed message failed", exc_info=error)


def answer_of(task: asyncio.Task[bytes]) -> bytes:
    """What the handler returned.

    Raises:
        RelayLost: it is still running, was cancelled, or failed.
    """
    if not task.done():
        raise RelayLost("no answer in time", delivered=True)
    if task.cancelled() or task.exception() is not None:
        raise RelayLost("the handler did not answer", delivered=True)
    return task.result()
