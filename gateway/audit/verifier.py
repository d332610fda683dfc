"""Judges a log line by line. Every writer has its own chain; lines of several writers may alternate.

A writer's first line links to the line before it in the file, whoever wrote that. The order of lines of different
writers is therefore known only where a writer begins; ``time`` has it everywhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.audit.heads import HEADS_KEPT, Head, signed
from gateway.audit.records import START, Link, line_hash

PROBLEMS_KEPT = 1000
_RECENT = 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, at which line (0: with the log as a whole) of which file."""

    line: int
    message: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """A call that was executed or about to be, and whose outcome is not in the log."""

    line: int
    request_id: str
    time: str
    tool: str | None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement. ``signed``: heads were there and made with the key. ``unsealed``: records after the last head."""

    ok: bool
    records: int
    writers: int
    problems: tuple[Problem, ...]
    open_intents: tuple[OpenIntent, ...]
    signed: bool = False
    unsealed: int = 0


class _Line(msgspec.Struct):
    v: int
    writer: str
    seq: int
    event: str
    time: str
    request_id: str
    tool: str | None
    prev: str


_decoder = msgspec.json.Decoder(_Line)


class Verifier:
    """Feed it the lines of a log in order, then ask for the report.

    ``heads`` is None where there is no head file, ``keys`` is empty where nobody has the key. ``partial``: the
    beginning is known to be gone, so writers may begin in the middle.
    """

    def __init__(
        self, heads: Mapping[str, Head] | None = None, keys: Sequence[bytes] = (), *, partial: bool = False
    ) -> None:
        self._heads = heads
        self._keys = keys
        self._partial = partial
        self._path = ""
        self._files = 0
        self._number = self._records = 0
        self._last = START
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._writers: dict[str, Link] = {}
        self._intents: dict[tuple[str, str], OpenIntent] = {}
        self._problems: list[Problem] = []

    def problem(self, message: str, line: int = 0) -> None:
        """Note what is wrong; beyond ``PROBLEMS_KEPT`` only that something is."""
        if len(self._problems) < PROBLEMS_KEPT:
            self._problems.append(Problem(line, message, self._path))

    def begin(self, path: str) -> None:
        """A file begins; files come in the order they were written."""
        self._path, self._number = path, 0
        self._files += 1

    def feed(self, line: bytes) -> None:
        """Judge the next line, its newline included."""
        self._number += 1
        self._records += 1
        text = line[:-1] if line.endswith(b"\n") else line
        if text == line:
            self.problem("torn: the line has no end", self._number)
        digest = line_hash(text)
        try:
            record = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.problem("unparsable: not an audit record", self._number)
        else:
            self._judge(record, digest)
            self._pair(record)
        self._last = digest
        self._recent.append(digest)

    def _judge(self, record: _Line, digest: str) -> None:
        known = self._writers.get(record.writer)
        fault = self._first_fault(record) if known is None else _next_fault(record, known)
        if fault:
            self.problem(fault, self._number)
        head = (self._heads or {}).get(record.writer)
        if head is not None and head.seq == record.seq and head.hash != digest:
            self.problem(f"edited: record {record.seq} of {record.writer} is not the one in the head", self._number)
        if known is None or record.seq > known.seq:
            self._writers[record.writer] = Link(record.writer, record.seq, digest)

    def _first_fault(self, record: _Line) -> str:
        if self._number == 1 and self._files <= 1 and self._partial:
            return ""
        if record.seq != 1:
            return (
                ""
                if self._partial
                else f"gap: {record.writer} begins with record {record.seq}; the earlier are missing"
            )
        if record.prev == self._last or (self._number == 1 and record.prev in self._recent):
            return ""
        if record.prev == START and self._heads is None:
            return ""  # of an output that several writers share, and none can read
        if self._number == 1:
            return "gap: the file goes on from a line that is not here; name the earlier file too"
        return f"spliced: {record.writer} does not begin at the line before; it was changed, moved or removed"

    def _pair(self, record: _Line) -> None:
        call = (record.writer, record.request_id)
        if record.event == "intent":
            self._intents[call] = OpenIntent(self._number, record.request_id, record.time, record.tool, self._path)
        else:
            self._intents.pop(call, None)

    def report(self) -> Report:
        """The judgement over all lines fed so far, the heads included."""
        authentic = self._judge_heads()
        covered = {writer: head.seq for writer, head in (self._heads or {}).items()}
        return Report(
            ok=not self._problems,
            records=self._records,
            writers=len(self._writers),
            problems=tuple(self._problems),
            open_intents=tuple(self._intents.values()),
            signed=authentic,
            unsealed=sum(max(0, link.seq - covered.get(link.writer, 0)) for link in self._writers.values()),
        )

    def _judge_heads(self) -> bool:
        if self._heads is None:
            return False
        for writer, head in self._heads.items():
            if self._keys and not signed(self._keys, writer, head):
                self.problem(f"unknown head: that of {writer} was not signed with this key")
            self._judge_end(head, writer, self._writers.get(writer))
        if len(self._heads) < HEADS_KEPT:
            for writer in self._writers.keys() - self._heads.keys():
                self.problem(
                    f"spliced: {writer} is not in the head; its records are not of this log, or the head is not"
                )
        return bool(self._keys)

    def _judge_end(self, head: Head, writer: str, last: Link | None) -> None:
        seq = last.seq if last else 0
        if seq < head.seq and not (last is None and self._partial):
            self.problem(f"truncated: the head has {head.seq} records of {writer}, the log ends at {seq}")
        if seq > head.seq and head.closed:
            self.problem(f"spliced: {writer} ended with record {head.seq}, the log has {seq}")


def _next_fault(record: _Line, known: Link) -> str:
    if record.seq <= known.seq:
        return f"reordered or repeated: record {record.seq} of {record.writer} after {known.seq}"
    if record.seq > known.seq + 1:
        return f"gap: records {known.seq + 1} to {record.seq - 1} of {record.writer} are missing here"
    if record.prev != known.hash:
        return f"edited: record {known.seq} of {record.writer}, or the link of this one to it, was changed"
    return ""
