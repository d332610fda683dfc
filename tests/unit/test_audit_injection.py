"""Nothing that anybody sends begins a line of its own, forges a field or steers a terminal."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import fields

from gateway.audit import START, AuditEvent, Encoder, Link
from gateway.audit.reading import described, read_record
from gateway.cli.output import printable
from gateway.models import Principal

NASTY = [
    "\n",
    "\r",
    "\x00",
    "\x1b]0;x\x07",
    "\x7f",
    "\x9b",
    "\u2028",
    "\u2029",
    "\u202e",
    "\ud800",
    '","outcome":"ok',
    "\\",
]
TEXT = st.text(max_size=20) | st.lists(st.sampled_from(NASTY) | st.text(max_size=3), max_size=6).map("".join)
TEXTS = [each.name for each in fields(AuditEvent) if each.type in (str, str | None)]
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXT | st.none() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(TEXTS, TEXT),
        "outcome": st.sampled_from(["ok", "tool_error", "aborted"]),
        "principal": st.none() | st.builds(Principal, issuer=TEXT, subject=TEXT, client_id=st.none() | TEXT),
        "scopes_needed": st.none() | st.frozensets(TEXT, max_size=3),
        "arguments": st.none() | st.dictionaries(TEXT, VALUES, max_size=3),
    }
)


def test_every_text_of_an_event_is_among_those_that_are_tried() -> None:
    assert {"request_id", "client_address", "method", "toolset", "tool", "route", "rule", "outcome"} <= set(TEXTS)


@given(EVENTS, TEXT, st.sampled_from(["full", "digest", "none"]))
def test_a_record_is_one_line_of_printable_ascii_with_just_its_own_fields(event: Any, writer: str, mode: Any) -> None:
    body = Encoder(mode, b"k" * 32).encode(AuditEvent(**event), "request", 0.0)
    try:
        text, _ = Link(writer, 0, START).extend([body])
    except UnicodeEncodeError:  # no host has such a name
        return
    assert text.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in text[:-1])
    pairs = json.loads(text, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)) == 27
    said = json.loads(text)
    for name in ("method", "rule", "outcome", "era"):
        assert said[name] == event[name].encode("utf-8", "replace").decode()


@given(EVENTS)
@example({"request_id": "r", "arguments": {"far": float("inf"), "odd": "\ud800"}})
def test_what_is_shown_of_a_record_is_one_printable_line(event: Any) -> None:
    body = Encoder().encode(AuditEvent(**event), "outcome", 0.0)
    record = read_record(Link("w", 0, START).extend([body])[0][:-1])
    assert record is not None
    assert printable(described(record)).isprintable()


@given(TEXT, TEXT)
@example("\\n", "\n")
@example("\\x1b", "\x1b")
def test_different_texts_stay_different_when_they_are_made_printable(one: str, other: str) -> None:
    assert printable(one).isprintable()
    assert (printable(one) == printable(other)) == (one == other)
