"""A line of the audit as people read it, and which lines they want to see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)


class _Who(msgspec.Struct, frozen=True):
    issuer: str
    subject: str
    client_id: str | None


class Record(msgspec.Struct, frozen=True):
    """What of a line is shown or asked for."""

    v: int
    writer: str
    seq: int
    event: str
    time: str
    request_id: str
    client_address: str | None
    method: str | None
    tool: str | None
    principal: _Who | None
    rule: str
    outcome: str | None
    duration_ms: float | None
    prev: str


_decoder = msgspec.json.Decoder(Record)


def read_record(line: bytes) -> Record | None:
    """The record in a line; None where it is none."""
    try:
        return _decoder.decode(line)
    except _DECODE_ERRORS:
        return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are wanted; what is empty asks for nothing.

    ``principal`` is compared with subject and client id, ``tool`` with the public name; both may have ``*`` and ``?``.
    """

    principal: str = ""
    tool: str = ""
    outcomes: Collection[str] = ()

    @property
    def everything(self) -> bool:
        """Whether every record is wanted."""
        return not (self.principal or self.tool or self.outcomes)

    def matches(self, record: Record) -> bool:
        """Whether this one is."""
        who = record.principal
        names = (who.subject, who.client_id or "") if who is not None else ("",)
        return (
            (not self.principal or any(fnmatchcase(name, self.principal) for name in names))
            and (not self.tool or fnmatchcase(record.tool or "", self.tool))
            and (not self.outcomes or record.outcome in self.outcomes)
        )


def described(record: Record) -> str:
    """One line for people, not yet safe for a terminal: when, how it ended, what, who, how long, where from, why."""
    who = record.principal
    name = "-" if who is None else who.subject if who.client_id is None else f"{who.subject} ({who.client_id})"
    took = "-" if record.duration_ms is None else f"{record.duration_ms:.1f} ms"
    what = record.tool or record.method or "-"
    ended = (record.outcome or "-") if record.event in ("outcome", "request") else record.event
    asked = f"{record.time[:23]}Z {ended:<19} {what:<28} {name:<24} {took:>10}"
    return f"{asked}  {record.client_address or '-'}  {record.rule or '-'}  {record.request_id}"
