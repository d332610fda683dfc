"""From a snapshot to a line, and from lines to a chain.

A line is ASCII-only JSON, so nothing a client sends can start a new line or steer a terminal. ``prev`` is the SHA-256
of the exact bytes of the writer's line before, without the newline.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.audit.event import Snapshot
from gateway.audit.redaction import ARGUMENTS_LIMIT, STRING_LIMIT, TooLargeError, redact

ArgumentsMode = Literal["full", "digest", "none"]

START = "0" * 64
"""``prev`` of the first line of all."""

_BODY_LIMIT = ARGUMENTS_LIMIT + 4096
_NOT_PRINTABLE_ASCII = re.compile(r"[^\x20-\x7e]")
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


class _Who(msgspec.Struct):
    issuer: str
    subject: str
    client_id: str | None


class _Record(msgspec.Struct):
    """The fields between ``seq`` and ``prev``; their order is the order of the line."""

    event: str
    time: str
    request_id: str
    trace_id: str | None
    client_address: str | None
    era: str | None
    revision: str | None
    method: str | None
    toolset: str | None
    tool: str | None
    route: str | None
    backend_tool: str | None
    principal: _Who | None
    scopes_needed: list[str] | None
    rule: str
    arguments: msgspec.Raw | None
    outcome: str | None
    http_status: int | None
    dispatched: bool
    duration_ms: float | None
    backend_ms: float | None


_json = msgspec.json.Encoder()
_sorted_json = msgspec.json.Encoder(order="sorted")


def line_hash(line: bytes) -> str:
    """SHA-256 of a line without its newline, as ``prev`` of the next one has it."""
    return hashlib.sha256(line).hexdigest()


class Link(NamedTuple):
    """The end of a writer's chain: the next line has ``seq`` + 1 and ``hash`` as ``prev``."""

    writer: str
    seq: int
    hash: str

    def extend(self, bodies: Iterable[bytes]) -> tuple[bytes, Link]:
        """The bodies as lines, and the new end."""
        opening = b'{"v":1,"writer":' + _ascii(_json.encode(self.writer)) + b',"seq":'
        seq, prev, lines = self.seq, self.hash, []
        for body in bodies:
            seq += 1
            line = b'%b%d,%b,"prev":"%b"}' % (opening, seq, body, prev.encode("ascii"))
            prev = hashlib.sha256(line).hexdigest()
            lines.append(line)
        text = b"\n".join(lines) + b"\n" if lines else b""
        return text, Link(self.writer, seq, prev)


class Encoder:
    """Encodes snapshots. ``key`` makes argument digests keyed: nobody without it can try guesses against them."""

    def __init__(self, arguments_mode: ArgumentsMode = "full", key: bytes | None = None) -> None:
        self.arguments_mode = arguments_mode
        self._key = hmac.digest(key, b"mcp-gateway audit arguments", "sha256") if key else None

    def encode(self, taken: Snapshot) -> bytes:
        """The body of a line: its fields from ``event`` to ``backend_ms``, without braces. Never raises."""
        record = self._record(taken)
        try:
            body: bytes = _json.encode(record)
        except UnicodeEncodeError:
            body = _json.encode(_tamed(record))
        if len(body) > _BODY_LIMIT:
            body = _json.encode(_tamed(record))
        return _ascii(body)[1:-1]

    def _record(self, taken: Snapshot) -> _Record:
        (
            kind, now, request_id, trace_id, client_address, era, revision, method, toolset, tool, route, backend_tool,
            principal, scopes, rule, arguments, paths, cell, outcome, status, dispatched, started, duration, backend,
        ) = taken  # fmt: skip
        if kind == "intent":
            outcome = status = duration = backend = None
            dispatched = False
        elif duration is None and started:
            duration = (now - started) * 1000
        return _Record(
            kind,
            timestamp(now),
            request_id,
            trace_id,
            client_address,
            era,
            revision,
            method,
            toolset,
            tool,
            route,
            backend_tool,
            None if principal is None else _Who(principal.issuer, principal.subject, principal.client_id),
            None if scopes is None else sorted(scopes),
            rule,
            None if arguments is None else msgspec.Raw(self._arguments(arguments, paths, cell)),
            outcome,
            status,
            dispatched,
            None if duration is None else round(duration, 3),
            None if backend is None else round(backend, 3),
        )

    def _arguments(self, arguments: Any, paths: tuple[str, ...], cell: list[bytes]) -> bytes:
        if not cell:  # the outcome of a call takes what its intent has made
            cell.append(self._encode_arguments(arguments, paths))
        return cell[0]

    def _encode_arguments(self, arguments: Any, paths: tuple[str, ...]) -> bytes:
        if self.arguments_mode == "none":
            return b"null"
        if self.arguments_mode == "digest":
            return self._digest(arguments)
        try:
            text = _dump(redact(arguments, paths))
        except TooLargeError:
            return self._digest(arguments)
        return text if len(text) <= ARGUMENTS_LIMIT else self._digest(arguments)

    def _digest(self, arguments: Any) -> bytes:
        text = _dump(arguments)
        digest = hmac.digest(self._key, text, "sha256").hex() if self._key else hashlib.sha256(text).hexdigest()
        return b'{"sha256":"%b","bytes":%d}' % (digest.encode("ascii"), len(text))


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    micros = round(seconds * 1_000_000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _dump(value: Any) -> bytes:
    """ASCII JSON with sorted names, so that the same arguments have the same digest."""
    try:
        return _ascii(_sorted_json.encode(value))
    except _UNENCODABLE:
        pass  # integers over 64 bits, lone surrogates
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
    except _UNENCODABLE:
        return b'"[not JSON]"'


def _ascii(text: bytes) -> bytes:
    if text.isascii() and b"\x7f" not in text:
        return text
    return _NOT_PRINTABLE_ASCII.sub(_escape, text.decode()).encode("ascii")


def _escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _tamed(record: _Record) -> _Record:
    """The same with strings that are encodable and bounded: a client may send a method of 4 MiB."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            setattr(record, name, _tame(value))
    if record.principal is not None:
        who = record.principal
        record.principal = _Who(_tame(who.issuer), _tame(who.subject), who.client_id and _tame(who.client_id))
    return record


def _tame(text: str) -> str:
    cut = text if len(text) <= STRING_LIMIT else f"{text[:STRING_LIMIT]}[cut]"
    return cut.encode("utf-8", "replace").decode()
