"""Several worker processes on one listening socket: started, replaced when they die, stopped together."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

_RESTART_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ENDED_EARLY = (-signal.SIGTERM, -signal.SIGINT)
"""A worker that was told to stop while it still started: it served nobody."""


class Workers:
    """Forks ``count`` children that run ``work`` and passes signals on to them; ``ended`` is told who has ended.

    Forked before any thread or event loop exists, so that the children inherit the sockets and nothing else.
    """

    def __init__(
        self, count: int, work: Callable[[], int], *, ended: Callable[[int], None] = lambda _pid: None
    ) -> None:
        self._count = count
        self._work = work
        self._ended = ended
        self._children: dict[int, float] = {}
        self._stopping = False

    def run(self) -> int:
        """Run until a signal has ended every child; the exit code is the worst of theirs."""
        for number in _SIGNALS:
            signal.signal(number, self._forward)
        for _ in range(self._count):
            self._start()
        worst = 0
        while self._children:
            pid, status = os.wait()
            began = self._children.pop(pid, None)
            self._ended(pid)
            if self._stopping:
                code = os.waitstatus_to_exitcode(status)
                worst = max(worst, 0 if code in _ENDED_EARLY else abs(code))
            elif began is not None:
                self._replace(began)
        return worst

    def _start(self) -> None:
        # A signal that came between the fork and the entry in our list would miss this child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become_worker()
        self._children[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _become_worker(self) -> NoReturn:
        """Never back into the code of the parent, which would tidy up what the other workers use."""
        code = 1
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = self._work()
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(code)

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
