"""From an event to a line, and from lines to a chain.

A line is ASCII-only JSON, so nothing a client sends can start a new line or steer a terminal. ``prev`` is the SHA-256
of the exact bytes of the writer's line before, without the newline.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from binascii import hexlify
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from gateway.audit.event import AuditEvent, Kind
from gateway.audit.redaction import ARGUMENTS_LIMIT, TooLargeError, redact
from gateway.audit.results import NO_RESULT, Results, ResultsMode, derived
from gateway.audit.secret_text import STRING_LIMIT, clean_text
from gateway.models import Principal

ArgumentsMode = Literal["full", "digest", "none"]

START = "0" * 64
"""``prev`` of the first line of all."""

_FRAME_LIMIT = ARGUMENTS_LIMIT + 4096
_SUBJECTS_KEPT, _SUBJECT_LIMIT = 1024, 2048
_NOT_PRINTABLE_ASCII = re.compile(r"[^\x20-\x7e]")
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


class _Who(msgspec.Struct):
    issuer: str
    subject: str
    client_id: str | None


# A line has the fields of these three in this order; ``arguments`` are between the subject and the end.


class _Source(msgspec.Struct):
    """What every request has of its own."""

    request_id: str
    trace_id: str | None
    client_address: str | None


class _Subject(msgspec.Struct):
    """Who wants what: the same for many requests."""

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


class _Verdict(msgspec.Struct):
    """How it ended; then ``duration_ms`` and ``backend_ms``."""

    outcome: str | None
    http_status: int | None
    dispatched: bool


_SUBJECT = attrgetter(
    "era", "revision", "method", "toolset", "tool", "route", "backend_tool", "principal", "scopes_needed", "rule"
)
_json = msgspec.json.Encoder()
_sorted_json = msgspec.json.Encoder(order="sorted")
_OPENINGS: Mapping[Kind, bytes] = {kind: b'"event":"%b","time":"' % kind.encode("ascii") for kind in get_args(Kind)}
_NOT_ENDED = b',"outcome":null,"http_status":null,"dispatched":false,"duration_ms":null,"backend_ms":null'


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
        seq, prev, lines = self.seq, self.hash.encode("ascii"), []
        for body in bodies:
            seq += 1
            line = b"".join((opening, b"%d," % seq, body, b',"prev":"', prev, b'"}'))
            prev = hexlify(hashlib.sha256(line).digest())
            lines.append(line)
        text = b"\n".join(lines) + b"\n" if lines else b""
        return text, Link(self.writer, seq, prev.decode("ascii"))


class Encoder:
    """Encodes events. ``key`` makes argument digests keyed: nobody without it can try guesses against them."""

    def __init__(
        self, arguments_mode: ArgumentsMode = "full", key: bytes | None = None, results_mode: ResultsMode = "size"
    ) -> None:
        self.arguments_mode = arguments_mode
        self.results = Results(results_mode, key)
        self._key = key
        self._subjects: dict[tuple[Any, ...], tuple[bytes, Principal | None]] = {}

    def encode(self, event: AuditEvent, kind: Kind, now: float) -> bytes:
        """The body of a line as the event is at ``now`` (epoch seconds): all fields between ``seq`` and ``prev``,
        without braces. Cheap, because it runs on the event loop. Never raises.
        """
        rule, frame = event.frame or ("", b"")
        if not frame or rule != event.rule:
            frame = self._frame(event)
            event.frame = event.rule, frame
        end = _NOT_ENDED if kind == "intent" else _end(event, now)
        result = NO_RESULT if event.answer is None else self.results.fields(event.answer)
        return b"".join((_OPENINGS[kind], timestamp(now), b'",', frame, end, result))

    def _frame(self, event: AuditEvent) -> bytes:
        """The fields from ``request_id`` to ``arguments``."""
        arguments = b"null"
        if event.arguments is not None:
            mode = self.arguments_mode if event.kind == "request" else "full"
            arguments = self._arguments(mode, event.arguments, event.redact)
        source = _Source(event.request_id, event.trace_id, event.client_address)
        try:
            frame = b"".join((_json.encode(source)[1:-1], b",", self._subject(event), b',"arguments":', arguments))
        except UnicodeEncodeError:
            frame = b""
        if not frame or len(frame) > _FRAME_LIMIT:
            subject = _json.encode(_tamed(_subject_of(event)))
            frame = b'%b,%b,"arguments":%b' % (_json.encode(_tamed(source))[1:-1], subject[1:-1], arguments)
        return frame if frame.isascii() and b"\x7f" not in frame else _ascii(frame)

    def _subject(self, event: AuditEvent) -> bytes:
        """Found by the identity of the principal, which is kept with it: the whole takes long to compare."""
        who = event.principal
        key = (
            id(who),
            event.era,
            event.revision,
            event.method,
            event.toolset,
            event.tool,
            event.route,
            event.backend_tool,
            event.scopes_needed,
            event.rule,
        )
        known = self._subjects.get(key)
        if known is not None:
            return known[0]
        text = _json.encode(_subject_of(event))[1:-1]
        if len(text) <= _SUBJECT_LIMIT:
            if len(self._subjects) >= _SUBJECTS_KEPT:
                self._subjects.clear()
            self._subjects[key] = text, who
        return text

    def _arguments(self, mode: ArgumentsMode, arguments: Any, paths: tuple[str, ...]) -> bytes:
        if mode == "none":
            return b"null"
        if mode == "digest":
            return self._digest(arguments)
        try:
            text = _dump(redact(arguments, paths))
        except TooLargeError:
            return self._digest(arguments)
        return text if len(text) <= ARGUMENTS_LIMIT else self._digest(arguments)

    def _digest(self, arguments: Any) -> bytes:
        digest, size = arguments_digest(self._key, arguments)
        return b'{"sha256":"%b","bytes":%d}' % (digest.encode("ascii"), size)


def arguments_digest(key: bytes | None, arguments: Any) -> tuple[str, int]:
    """HMAC-SHA256 of arguments under a key derived from ``key``, and their size in bytes; without a key their SHA-256.

    The order of names does not matter.
    """
    text = _dump(arguments)
    if key is None:
        return hashlib.sha256(text).hexdigest(), len(text)
    return hmac.digest(derived(key, b"mcp-gateway audit arguments"), text, "sha256").hex(), len(text)


def _subject_of(event: AuditEvent) -> _Subject:
    subject = _Subject(*_SUBJECT(event))
    # A resource is known by its URI, which a client may have put a secret into.
    subject.tool, subject.backend_tool = _without_secrets(subject.tool), _without_secrets(subject.backend_tool)
    if subject.principal is not None:
        who: Any = subject.principal
        subject.principal = _Who(who.issuer, who.subject, who.client_id)
    if subject.scopes_needed is not None:
        subject.scopes_needed = sorted(subject.scopes_needed)
    return subject


def _without_secrets(name: str | None) -> str | None:
    return None if name is None else clean_text(name)


def _end(event: AuditEvent, now: float) -> bytes:
    """The fields from ``outcome`` on."""
    duration, backend = event.duration_ms, event.backend_ms
    if duration is None and event.started:
        duration = (now - event.started) * 1000
    verdict = _verdict(event.outcome, event.http_status, event.dispatched)
    if duration is None or backend is None:
        return b'%b%b,"backend_ms":%b' % (verdict, _or_null(duration), _or_null(backend))
    return b'%b%.3f,"backend_ms":%.3f' % (verdict, duration, backend)


def _or_null(number: float | None) -> bytes:
    return b"null" if number is None else b"%.3f" % number


@lru_cache(maxsize=256)
def _verdict(outcome: str, http_status: int | None, dispatched: bool) -> bytes:
    return b',%b,"duration_ms":' % _json.encode(_Verdict(outcome, http_status, dispatched))[1:-1]


def timestamp(seconds: float) -> bytes:
    """RFC 3339 in UTC with microseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return b"%b.%06dZ" % (_second(whole), micros)


@lru_cache(maxsize=4)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")


def _dump(value: Any) -> bytes:
    """ASCII JSON with sorted names, so that the same arguments have the same digest."""
    try:
        return _ascii(_sorted_json.encode(value))
    except _UNENCODABLE:
        pass  # integers over 64 bits, lone surrogates
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return _ascii(text.encode("utf-8", "replace"))
    except _UNENCODABLE:
        return b'"[not JSON]"'


def _ascii(text: bytes) -> bytes:
    if text.isascii() and b"\x7f" not in text:
        return text
    return _NOT_PRINTABLE_ASCII.sub(_escape, text.decode()).encode("ascii")


def _escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _tamed(record: _Source | _Subject) -> _Source | _Subject:
    """The same with strings that are encodable and bounded: a client may send a method of 4 MiB."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            setattr(record, name, _tame(value))
        elif isinstance(value, list):
            setattr(record, name, [_tame(each) for each in value])
        elif isinstance(value, _Who):
            setattr(
                record,
                name,
                _Who(_tame(value.issuer), _tame(value.subject), value.client_id and _tame(value.client_id)),
            )
    return record


def _tame(text: str) -> str:
    cut = text if len(text) <= STRING_LIMIT else f"{text[:STRING_LIMIT]}[cut]"
    return cut.encode("utf-8", "replace").decode()
