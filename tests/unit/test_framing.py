import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.framing import LONGEST, Head

MESSAGE = b"POST /mcp HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\nx-a: 1\r\n\r\n{}"
BODIES = st.binary(max_size=300)
DIGIT = MESSAGE.index(b": 2\r\n") + 2


def body(data):
    """The digits and the body of a whole message."""
    found = head().begins(data)
    return found[:2] if found is not None and not found[2] else None


def head():
    found = Head.of(MESSAGE)
    assert found is not None
    return found


def test_a_head_is_known_again_with_another_length():
    assert body(MESSAGE) == (b"2", b"{}")
    longer = MESSAGE.replace(b"Content-Length: 2", b"Content-Length: 14")[:-2] + b'{"some":"body"}'[:14]
    assert body(longer) == (b"14", b'{"some":"body"')


@given(content=BODIES)
def test_whatever_the_body_is_it_is_what_the_length_says(content):
    message = MESSAGE[:-2].replace(b": 2\r\n", b": %d\r\n" % len(content)) + content
    assert body(message) == (b"%d" % len(content), content)
    assert Head.of(message) == head()


@given(content=BODIES.filter(len), data=st.data())
def test_a_part_of_a_message_is_none_and_neither_is_more_than_one(content, data):
    message = MESSAGE[:-2].replace(b": 2\r\n", b": %d\r\n" % len(content)) + content
    assert body(message[: data.draw(st.integers(0, len(message) - 1))]) is None
    assert body(message + b"x") is None


@given(at=st.integers(0, len(MESSAGE) - 1).filter(lambda at: at != DIGIT), byte=st.integers(0, 255))
def test_one_other_byte_in_the_head_makes_it_another(at, byte):
    other = MESSAGE[:at] + bytes([byte]) + MESSAGE[at + 1 :]
    found = head().begins(other)
    end = len(MESSAGE) - 2
    assert (found is not None) == (other[:end] == MESSAGE[:end])


@pytest.mark.parametrize(
    "digits",
    [b"", b"+2", b"-2", b" 2", b"2 ", b"0x2", b"2,2", b"2;", b"99999999", b"000000000002"],
    ids=repr,
)
def test_what_is_no_plain_number_is_no_length(digits):
    assert body(MESSAGE.replace(b": 2\r\n", b": %b\r\n" % digits)) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        MESSAGE[:-1],
        MESSAGE + b" ",
        b"POST / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\ncontent-length: 2\n\n\r\n\r\n{}",
        b"POST / HTTP/1.1\r\ncontent-length:\t2\r\n\r\n{}",
        MESSAGE.replace(b"x-a: 1", b"x-a: %b" % (b"1" * LONGEST)),
    ],
    ids=["nothing", "no head", "too short", "too long", "no length", "other line ends", "a tab", "a long head"],
)
def test_what_cannot_be_told_apart_for_sure_is_not_kept(message):
    assert Head.of(message) is None


def test_a_head_is_where_its_body_begins_whatever_the_body_holds():
    message = b"POST / HTTP/1.1\r\ncontent-length: 40\r\n\r\n" + b"\r\ncontent-length: 3\r\n\r\nabc".ljust(40)
    found = Head.of(message)
    assert found == (b"POST / HTTP/1.1\r\ncontent-length: ", b"\r\n\r\n", 33)


@given(content=BODIES.filter(len), data=st.data())
def test_of_a_body_that_is_still_to_come_it_says_how_much(content, data):
    at = data.draw(st.integers(0, len(content)))
    message = MESSAGE[:-2].replace(b": 2\r\n", b": %d\r\n" % len(content)) + content[:at]
    assert head().begins(message) == (b"%d" % len(content), content[:at], len(content) - at)
