"""Several worker processes on one listening socket: started, replaced when they die, stopped together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

_RESTART_SECONDS = 1.0


class Workers:
    """Forks ``count`` children that run ``work`` and passes signals on to them.

    Forked before any thread or event loop exists, so that the children inherit the sockets and nothing else.
    """

    def __init__(self, count: int, work: Callable[[], int]) -> None:
        self._count = count
        self._work = work
        self._children: dict[int, float] = {}
        self._stopping = False

    def run(self) -> int:
        """Run until a signal has ended every child; the exit code is the worst of theirs."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._forward)
        for _ in range(self._count):
            self._start()
        worst = 0
        while self._children:
            pid, status = os.wait()
            began = self._children.pop(pid, None)
            if self._stopping:
                worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
            elif began is not None:
                self._replace(began)
        return worst

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os._exit(self._work())
        self._children[pid] = time.monotonic()

    def _replace(self, began: float) -> None:
        """A worker that dies at once is not restarted in a tight loop."""
        if time.monotonic() - began < _RESTART_SECONDS:
            time.sleep(_RESTART_SECONDS)
        if not self._stopping:
            self._start()

    def _forward(self, number: int, frame: object) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        for pid in self._children:
            os.kill(pid, number)
