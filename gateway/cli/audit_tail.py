"""How ``audit tail`` shows events: on a terminal, or line by line for programs."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable

from gateway.audit.reading import Record, Wanted, described, read_record
from gateway.cli.output import err, out, printable
from gateway.stores.audit_tail import Tail

_PAUSE = 0.2  # seconds
MOST_OF_A_LINE = 16 << 10
"""Bytes."""
_SHOWN_OF_INVALID = 80

_STYLES = {"ok": "green", "": "dim", "tool_error": "yellow", "backend_error": "yellow", "aborted": "yellow"}
_REFUSED = "red"


class Shown:
    """Shows the wanted records and says which lines are none; ``invalid`` counts those."""

    def __init__(self, wanted: Wanted, *, as_they_are: bool) -> None:
        self._wanted = wanted
        self._as_they_are = as_they_are
        self.everything = wanted.everything
        self.invalid = 0

    def chosen(self, lines: Iterable[bytes]) -> Iterable[tuple[bytes, Record]]:
        """The wanted ones of these lines."""
        for line in lines:
            record = read_record(line)
            if record is None:
                self.tell_invalid(line)
            elif self._wanted.matches(record):
                yield line, record

    def tell_invalid(self, line: bytes) -> None:
        """Say that a line is no record."""
        self.invalid += 1
        said = printable(line[:_SHOWN_OF_INVALID].decode("ascii", "backslashreplace"))
        err.print(f"not a record: {said}", style="red", markup=False, highlight=False, soft_wrap=True)

    def show(self, chosen: Iterable[tuple[bytes, Record]]) -> None:
        """Write them out at once."""
        for line, record in chosen:
            if self._as_they_are:
                sys.stdout.buffer.write(line + b"\n")
            elif out.is_terminal:
                style = _STYLES.get(record.outcome or "", _REFUSED)
                out.print(printable(described(record)), style=style, markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stdout.write(printable(described(record)) + "\n")
        sys.stdout.flush()


def watch(log: Tail, shown: Shown, count: int, *, follow: bool, pause: Callable[[float], None] = time.sleep) -> None:
    """Show the last ``count`` wanted events and, with ``follow``, those that come, until interrupted or not read.

    Raises:
        OSError: the log cannot be read any more.
    """
    try:
        shown.show(deque(shown.chosen(log.read()), maxlen=count))
        while follow:
            pause(_PAUSE)
            shown.show(shown.chosen(log.read()))
        if log.torn:
            shown.tell_invalid(b"the last line has no end")
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing to say at exit
    finally:
        log.close()
