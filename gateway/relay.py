"""Messages between the processes of a gateway, as a port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class RelayLost(Exception):  # noqa: N818 - a state of the world, handled by every caller
    """Nobody is at the address, its handler failed, or its answer did not come in time.

    ``delivered`` is False only where the request surely reached nobody: nothing was done then.
    """

    def __init__(self, reason: str, *, delivered: bool) -> None:
        super().__init__(reason)
        self.delivered = delivered


class Relay(Protocol):
    """Makes the processes of this gateway one: a message reaches the one that holds what it is for."""

    @property
    def here(self) -> str:
        """This process's address: unguessable, short, of letters and digits, another after each start."""
        ...

    async def ask(self, there: str, topic: str, payload: bytes, seconds: float) -> bytes:
        """Let the process at ``there`` handle this and return its answer. Cancelling the caller cancels the handler.

        Raises:
            RelayLost: nobody is there (any more), the handler failed, or ``seconds`` have passed.
        """
        ...

    def tell(self, there: str, topic: str, payload: bytes) -> None:
        """The same without an answer: never waits, never raises, may get lost. In order for one address."""
        ...

    def publish(self, topic: str, payload: bytes, *, here: bool = True) -> None:
        """Tell every process; ``here``: this one too."""
        ...

    def serve(self, topic: str, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Handle a topic here. The answer to what was told or published is dropped."""
        ...
