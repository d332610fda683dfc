"""Server-sent events, fed whole and cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.sse import EventTooLarge, Position, SseParser


def events(*chunks: bytes, limit: int = 10_000) -> list[bytes]:
    parser = SseParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: a\n\n", [b"a"], id="LF ends a line"),
        pytest.param(b"data: a\r\n\r\n", [b"a"], id="CRLF ends a line"),
        pytest.param(b"data: a\r\r", [b"a"], id="CR ends a line"),
        pytest.param(b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"], id="line ends may be mixed"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [b"a"], id="a byte order mark at the start is not data"),
        pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"], id="a byte order mark elsewhere is no field"),
        pytest.param(b": ping\n\ndata: a\n: x\n\n", [b"a"], id="comments say nothing"),
        pytest.param(b"data: a\ndata: b\ndata:\n\n", [b"a\nb\n"], id="lines of data are joined"),
        pytest.param(b"data:a\n\ndata:  b\n\n", [b"a", b" b"], id="one space after the colon is not data"),
        pytest.param(b"data\n\n", [b""], id="a field without a colon has an empty value"),
        pytest.param(b"id: 7\nretry: 10\ndata: a\nunknown: x\n\n", [b"a"], id="other fields are read over"),
        pytest.param(b"id: 7\n\n\n\n", [], id="an event without data is none"),
        pytest.param(b"event: message\ndata: a\n\n", [b"a"], id="the type message is the default"),
        pytest.param(b"event: ping\ndata: a\n\ndata: b\n\n", [b"b"], id="other types are not MCP"),
        pytest.param(b"data: a\n\ndata: b\n", [b"a"], id="an event that the stream cut off is none"),
        pytest.param(b'data: {"a": "x:y"}\n\n', [b'{"a": "x:y"}'], id="colons in data stay"),
    ],
)
def test_a_stream_is_read_the_same_whole_and_byte_by_byte(stream: bytes, expected: list[bytes]) -> None:
    assert events(stream) == expected
    assert events(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_an_event_is_handed_out_with_its_last_byte() -> None:
    parser = SseParser(100)
    assert parser.feed(b"data: a\r\n") == []
    assert parser.feed(b"\r") == [b"a"]
    assert parser.feed(b"\ndata: b\n\n") == [b"b"]


def test_the_position_is_that_after_the_last_whole_event() -> None:
    position = Position()
    parser = SseParser(100, position=position)

    parser.feed(b"id: 7\nretry: 20\ndata:\n\nid: 8\ndata: cut")
    assert (position.id, position.retry) == (b"7", 20)

    parser.feed(b" off\n\nid: \x00\nretry: soon\nevent: other\ndata: x\n\n")
    assert (position.id, position.retry) == (b"8", 20)


LINES = st.lists(
    st.sampled_from(
        [b"data: one", b"data: \xc3\xa9\xe2\x82\xac", b"data:", b": note", b"", b"", b"id: 1", b"event: other", b"x"]
    ),
    max_size=12,
)


@given(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"]), st.lists(st.integers(0, 200), max_size=8))
def test_where_a_stream_is_cut_changes_nothing(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + end for line in lines)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert events(*(stream[a:b] for a, b in itertools.pairwise(edges))) == events(stream)


@pytest.mark.parametrize("unit", [b"data: 12345\n", b"x", b"data: 1\n"])
def test_an_event_over_the_limit_ends_the_reading(unit: bytes) -> None:
    with pytest.raises(EventTooLarge):
        events(*[unit] * 60, limit=50)


def test_an_event_over_the_limit_in_one_chunk_is_refused_too() -> None:
    with pytest.raises(EventTooLarge):
        events(b"data: " + b"x" * 60 + b"\n\n", limit=50)


def test_many_events_under_the_limit_pass() -> None:
    assert len(events(*[b"data: 12345\n\n: note\n"] * 1_000, limit=20)) == 1_000
