import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import START, AuditEvent, Encoder, Link
from gateway.audit.event import Kind
from gateway.audit.reading import Record, Wanted, described, read_record
from gateway.models import Principal


def record(kind: Kind = "outcome", **fields: object) -> Record:
    event = AuditEvent("0192f7", **fields)  # type: ignore[arg-type]
    text, _ = Link("w", 0, START).extend([Encoder().encode(event, kind, 1764028800.135)])
    found = read_record(text[:-1])
    assert found is not None
    return found


ALICE = Principal("https://idp", "alice", "agent-7")


def test_a_record_is_one_line_that_says_when_what_who_and_why() -> None:
    seen = record(
        tool="deploy__rollback",
        principal=ALICE,
        rule="limits.everyone",
        outcome="rate_limited",
        duration_ms=0.23,
        client_address="10.2.3.4",
    )
    what = ["2025-11-25T00:00:00.135Z", "rate_limited", "deploy__rollback", "alice", "(agent-7)", "0.2", "ms"]
    assert described(seen).split() == [*what, "10.2.3.4", "limits.everyone", "0192f7"]


def test_what_is_not_known_is_a_dash_and_an_intent_is_called_one() -> None:
    unknown = ["-", "-", "-", "-"]
    assert described(record("intent", method="tools/call")).split()[1:] == ["intent", "tools/call", *unknown, "0192f7"]
    assert "alice " in described(record(principal=Principal("https://idp", "alice")))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), True),
        (Wanted(principal="alice"), True),
        (Wanted(principal="agent-*"), True),
        (Wanted(principal="ali"), False),
        (Wanted(tool="deploy__*"), True),
        (Wanted(tool="deploy"), False),
        (Wanted(outcomes=["ok", "rate_limited"]), True),
        (Wanted(outcomes=["ok"]), False),
        (Wanted("alice", "deploy__*", ["rate_limited"]), True),
        (Wanted("bob", "deploy__*", ["rate_limited"]), False),
    ],
)
def test_records_are_chosen_by_principal_tool_and_outcome(wanted: Wanted, expected: bool) -> None:
    seen = record(tool="deploy__rollback", principal=ALICE, outcome="rate_limited")
    assert wanted.matches(seen) is expected
    assert wanted.everything is (wanted == Wanted())


def test_a_record_without_a_principal_or_a_tool_is_not_one_of_somebody() -> None:
    assert not Wanted(principal="*a*").matches(record())
    assert not Wanted(tool="?*").matches(record())


@given(st.binary() | st.sampled_from([b"{}", b"[]", b'{"v":1}', b"\xff", b"null"]))
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert read_record(line) is None
