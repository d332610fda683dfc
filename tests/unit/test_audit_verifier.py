import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.audit import (
    START,
    AuditEvent,
    Encoder,
    HeadError,
    Link,
    Verifier,
    line_hash,
    parse_heads,
    render_heads,
    sign,
)
from gateway.audit.heads import HEADS_KEPT
from gateway.audit.verifier import PROBLEMS_KEPT

KEY = b"k" * 32


def bodies(count, name="r"):
    encoder = Encoder()
    return [encoder.encode(AuditEvent(f"{name}{at}", method="ping"), "request", at) for at in range(count)]


def log_of(writer, count, prev=START):
    text, link = Link(writer, 0, prev).extend(bodies(count))
    return text.splitlines(keepends=True), link


def heads_of(*links, closed=True):
    return {link.writer: sign(KEY, link, closed=closed) for link in links}


def judge(lines, heads, keys=(KEY,), **options):
    verifier = Verifier(heads, keys, **options)
    verifier.begin("log")
    for line in lines:
        verifier.feed(line)
    return verifier.report()


LINES, LINK = log_of("one", 6)
HEADS = heads_of(LINK)
OTHER, OTHER_LINK = log_of("two", 4)


def said(report):
    return " | ".join(problem.message for problem in report.problems)


def test_an_untouched_log_is_in_order():
    report = judge(LINES, HEADS)
    assert (report.ok, report.records, report.writers, report.signed, report.unsealed) == (True, 6, 1, True, 0)


@given(st.data())
def test_an_edit_of_any_byte_is_found(data):
    text = bytearray(b"".join(LINES))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at]))
    assert not judge(bytes(text).splitlines(keepends=True), HEADS).ok


@given(st.data())
def test_an_edit_of_any_byte_of_the_heads_is_found(data):
    text = bytearray(render_heads({}, "one", HEADS["one"])[:-1])
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at]))
    try:
        heads = parse_heads(bytes(text))
    except HeadError:
        return
    assert not judge(LINES, heads).ok


@given(st.sets(st.integers(0, 5), min_size=1))
def test_removed_lines_are_found(removed):
    assert not judge([line for at, line in enumerate(LINES) if at not in removed], HEADS).ok


@given(st.permutations(range(6)))
def test_any_other_order_is_found(order):
    assume(order != list(range(6)))
    assert not judge([LINES[at] for at in order], HEADS).ok


@given(st.integers(0, 6), st.sampled_from([*LINES, *OTHER, b"\n", b"{}\n", b"\xff\n", b"[]\n"]))
def test_an_inserted_line_is_found(at, line):
    assert not judge([*LINES[:at], line, *LINES[at:]], HEADS).ok


@given(st.integers(0, 6), st.integers(0, 3), st.integers(1, 4))
def test_a_spliced_part_of_another_log_is_found(at, start, length):
    assert not judge([*LINES[:at], *OTHER[start : start + length], *LINES[at:]], HEADS).ok


@given(st.integers(1, 6))
def test_a_cut_tail_is_found_by_the_head(cut):
    report = judge(LINES[:-cut], HEADS)
    assert "truncated" in said(report)


def test_a_log_written_anew_in_full_is_found_by_the_head():
    text, _ = Link("one", 0, START).extend(bodies(6, name="forged"))
    assert "edited: record 6" in said(judge(text.splitlines(keepends=True), HEADS))


def test_records_after_the_end_of_a_writer_are_found():
    more, _ = LINK.extend(bodies(1))
    assert "ended with record 6" in said(judge([*LINES, more], HEADS))


def test_records_that_a_crash_left_without_a_head_are_counted_and_no_problem():
    more, _ = LINK.extend(bodies(2))
    report = judge([*LINES, *more.splitlines(keepends=True)], heads_of(LINK, closed=False))
    assert (report.ok, report.unsealed) == (True, 2)


def test_a_last_line_without_its_end_is_torn():
    assert "torn" in said(judge([*LINES[:-1], LINES[-1][:-1]], HEADS))


def test_a_head_signed_with_another_key_is_unknown():
    assert "unknown head" in said(judge(LINES, HEADS, keys=(b"x" * 32,)))


def test_former_keys_are_accepted_when_they_are_given():
    assert judge(LINES, HEADS, keys=(b"x" * 32, KEY)).ok


def test_without_the_key_heads_are_compared_but_not_called_signed():
    report = judge(LINES, HEADS, keys=())
    assert (report.ok, report.signed) == (True, False)
    assert "truncated" in said(judge(LINES[:-1], HEADS, keys=()))


def test_lines_of_two_writers_may_alternate():
    second, link = log_of("two", 4, prev=line_hash(LINES[1][:-1]))
    mixed = [*LINES[:2], second[0], LINES[2], *second[1:3], *LINES[3:], second[3]]
    assert judge(mixed, heads_of(LINK, link)).ok


def test_a_writer_that_does_not_begin_at_the_line_before_shows_what_was_removed():
    second, link = log_of("two", 2, prev=LINK.hash)
    assert judge([*LINES, *second], heads_of(LINK, link)).ok
    assert "spliced" in said(judge([*LINES[:-1], *second], None))


def test_an_output_that_writers_share_without_reading_it_has_chains_that_begin_anywhere():
    mixed = [LINES[0], OTHER[0], *LINES[1:3], *OTHER[1:], *LINES[3:]]
    assert judge(mixed, None, keys=()).ok
    assert "gap" in said(judge([line for line in mixed if line is not LINES[2]], None, keys=()))
    assert "edited" in said(judge([line.replace(b"ping", b"pong") for line in mixed], None, keys=()))
    assert "spliced" in said(judge(mixed, heads_of(LINK, OTHER_LINK)))


def test_a_log_whose_beginning_was_removed_is_found_unless_that_is_known():
    second, link = log_of("two", 2, prev=LINK.hash)
    assert "goes on from a line that is not here" in said(judge(second, None))
    assert judge(second, heads_of(LINK, link), partial=True).ok
    assert "begins with record 3" in said(judge(LINES[2:], HEADS))
    assert judge(LINES[2:], HEADS, partial=True).ok


def test_several_files_are_one_log():
    second, link = log_of("two", 2, prev=LINK.hash)
    verifier = Verifier(heads_of(LINK, link), (KEY,))
    for path, lines in (("a", LINES), ("b", second)):
        verifier.begin(path)
        for line in lines:
            verifier.feed(line)
    assert verifier.report().ok


def test_a_writer_without_a_head_is_found_where_heads_are():
    assert "is not in the head" in said(judge(LINES, {}))


def test_intents_without_outcome_are_listed():
    encoder = Encoder()
    event = AuditEvent("call-1", tool="deploy__rollback")
    done = AuditEvent("call-2")
    kinds = ((event, "intent"), (done, "intent"), (done, "outcome"))
    text, link = Link("one", 0, START).extend(encoder.encode(each, kind, 0) for each, kind in kinds)
    report = judge(text.splitlines(keepends=True), heads_of(link))
    assert report.ok
    (intent,) = report.open_intents
    assert (intent.line, intent.request_id, intent.tool) == (1, "call-1", "deploy__rollback")


def test_a_broken_log_has_a_bounded_report():
    assert len(judge([b"x\n"] * (PROBLEMS_KEPT + 5), None).problems) == PROBLEMS_KEPT


def test_the_head_file_keeps_the_writers_that_wrote_last():
    heads = {}
    for at in range(HEADS_KEPT + 3):
        heads = parse_heads(render_heads(heads, f"w{at}", sign(KEY, Link(f"w{at}", 1, START), closed=True)))
    assert len(heads) == HEADS_KEPT
    assert next(reversed(heads)) == f"w{HEADS_KEPT + 2}"
    heads = parse_heads(render_heads(heads, "w5", sign(KEY, Link("w5", 2, START), closed=True)))
    assert next(reversed(heads)) == "w5"


@pytest.mark.parametrize("text", [b"", b"[]", b'{"w":{}}', b'{"w":1}', b"\xff", json.dumps({"w": {"seq": 1}}).encode()])
def test_a_head_file_that_is_not_one_is_an_error(text):
    with pytest.raises(HeadError):
        parse_heads(text)
