import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import START, AuditEvent, Encoder, Link, line_hash
from gateway.audit.records import timestamp
from gateway.models import Principal

FIELDS = re.findall(
    r"\w+",
    "v writer seq event time request_id trace_id client_address era revision method toolset tool route backend_tool "
    "principal scopes_needed rule arguments outcome http_status dispatched duration_ms backend_ms result_bytes "
    "result_digest prev",
)


def full_event(**changes):
    fields = {
        "request_id": "r1", "trace_id": "t", "client_address": "10.0.0.1", "era": "modern", "revision": "2026-07-28",
        "method": "tools/call", "tool": "deploy__rollback", "route": "deploy", "backend_tool": "rollback",
        "principal": Principal("https://idp", "alice", "agent"), "scopes_needed": frozenset({"b", "a"}),
        "rule": "routes.deploy.scopes", "arguments": {"n": 1}, "outcome": "ok", "http_status": 200, "dispatched": True,
        "duration_ms": 1.23456, "backend_ms": 1.0,
    }  # fmt: skip
    return AuditEvent(**(fields | changes))


def line_of(event, kind="outcome"):
    return Link("w", 0, START).extend([Encoder().encode(event, kind, 1764028800.5)])[0]


def test_a_line_has_all_fields_in_their_order():
    line = line_of(full_event())
    record = json.loads(line)
    assert list(record) == FIELDS
    assert list(record["principal"]) == ["issuer", "subject", "client_id"]
    assert (record["time"], record["scopes_needed"]) == ("2025-11-25T00:00:00.500000Z", ["a", "b"])
    assert (record["duration_ms"], record["arguments"], record["prev"]) == (1.235, {"n": 1}, START)


def test_an_event_nobody_filled_has_all_fields_and_says_aborted():
    record = json.loads(line_of(AuditEvent("r"), "request"))
    assert list(record) == FIELDS
    assert (record["outcome"], record["principal"], record["arguments"]) == ("aborted", None, None)


def test_an_intent_says_nothing_about_how_it_ended():
    record = json.loads(line_of(full_event(), "intent"))
    ended = {name: record[name] for name in ("outcome", "http_status", "dispatched", "duration_ms", "backend_ms")}
    assert ended == {
        "outcome": None,
        "http_status": None,
        "dispatched": False,
        "duration_ms": None,
        "backend_ms": None,
    }


def test_the_duration_is_measured_from_the_start_where_nobody_gave_it():
    record = json.loads(line_of(full_event(duration_ms=None, started=1764028800.25)))
    assert record["duration_ms"] == 250.0


def test_an_outcome_says_the_same_as_its_intent_and_how_it_ended():
    encoder, event = Encoder(), full_event(outcome="aborted")
    intent = json.loads(b"{" + encoder.encode(event, "intent", 0.0) + b"}")
    event.outcome = "ok"
    outcome = json.loads(b"{" + encoder.encode(event, "outcome", 0.0) + b"}")
    changed = {name for name in intent if intent[name] != outcome[name]}
    assert changed == {"event", "outcome", "http_status", "dispatched", "duration_ms", "backend_ms"}


def test_an_outcome_after_a_refusal_has_the_rule_of_the_refusal():
    encoder, event = Encoder(), full_event()
    encoder.encode(event, "intent", 0.0)
    event.rule = "audit"
    assert b'"rule":"audit"' in encoder.encode(event, "outcome", 0.0)


def test_events_that_differ_in_one_field_never_share_what_is_remembered():
    encoder = Encoder()
    others = {
        "era": "legacy", "revision": "2025-11-25", "method": "prompts/get", "toolset": "oncall", "tool": "t",
        "route": "r", "backend_tool": "b", "principal": Principal("https://idp", "bob", "agent"),
        "scopes_needed": frozenset({"c"}), "rule": "x",
    }  # fmt: skip
    encoder.encode(full_event(), "request", 0.0)
    for name, value in others.items():
        changed = full_event(**{name: value})
        assert encoder.encode(changed, "request", 0.0) == Encoder().encode(changed, "request", 0.0)


def test_what_clients_choose_fills_no_memory():
    encoder = Encoder()
    for at in range(3000):
        encoder.encode(AuditEvent("r", backend_tool=f"file:///{at}"), "request", 0.0)
    encoder.encode(AuditEvent("r", backend_tool="file:///" + "x" * 10_000), "request", 0.0)
    kept = [len(text) for text, _ in encoder._subjects.values()]
    assert sum(kept) < 1024 * 2048
    assert max(kept) <= 2048


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_a_line_is_printable_ascii_whatever_the_client_sends(method, subject, arguments):
    line = line_of(AuditEvent("r", method=method, principal=Principal("i", subject), arguments=arguments))
    assert line.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in line[:-1])
    record = json.loads(line)
    assert (record["method"], record["principal"]["subject"]) == (method, subject)


@pytest.mark.parametrize("text", ["\ud800", "a\x7fb\u2028", "\U0001f600"])
def test_odd_characters_are_escaped_or_replaced(text):
    record = json.loads(line_of(AuditEvent("r", tool=text, arguments={"a": text})))
    assert record["arguments"]["a"] == record["tool"] == text.replace("\ud800", "?")


def test_a_huge_method_is_cut():
    assert len(line_of(AuditEvent("r", method="m" * 4_000_000))) < 2048


def test_each_line_has_the_hash_of_the_line_before():
    body = Encoder().encode(AuditEvent("r"), "request", 0.0)
    text, end = Link("w", 7, "f" * 64).extend([body, body])
    first, second = text.splitlines()
    assert json.loads(first)["prev"] == "f" * 64
    assert json.loads(second)["prev"] == line_hash(first)
    assert [json.loads(line)["seq"] for line in (first, second)] == [8, 9]
    assert end == Link("w", 9, line_hash(second))


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_keep_their_microseconds(micros):
    assert timestamp(micros / 1_000_000).endswith(b".%06dZ" % (micros % 1_000_000))


@pytest.mark.parametrize("mode", ["full", "digest", "none"])
def test_what_changed_of_a_tool_is_kept_whatever_is_kept_of_arguments(mode):
    told = {"change": "changed", "fields": ["description"], "pinned": "a" * 64, "found": "b" * 64}
    event = AuditEvent("r1", kind="tools_changed", arguments=told, outcome="quarantined")
    body = json.loads(b"{" + Encoder(mode, b"k" * 32).encode(event, event.kind, 0.0) + b"}")
    assert (body["event"], body["arguments"], body["outcome"]) == ("tools_changed", told, "quarantined")
