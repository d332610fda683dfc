"""Where messages may be posted: only to the origin whose stream said so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.legacy_sse import endpoint_of

STREAM = "https://tools.example.com/a/sse?tenant=1"


@pytest.mark.parametrize(
    ("named", "url"),
    [
        (b"/messages?sessionId=1", "https://tools.example.com/messages?sessionId=1"),
        (b"messages", "https://tools.example.com/a/messages"),
        (b"?id=1", "https://tools.example.com/a/sse?id=1"),
        (b" /m \r", "https://tools.example.com/m"),
        (b"https://tools.example.com/m#part", "https://tools.example.com/m"),
        (b"https://tools.example.com:443/m", "https://tools.example.com:443/m"),
        (b"https://TOOLS.example.com/m", "https://TOOLS.example.com/m"),
    ],
)
def test_an_endpoint_of_the_same_origin_is_taken(named: bytes, url: str) -> None:
    assert endpoint_of(STREAM, named) == url


@pytest.mark.parametrize(
    "named",
    [
        b"https://evil.example.com/m",
        b"//evil.example.com/m",
        b"http://tools.example.com/m",
        b"https://tools.example.com:8443/m",
        b"https://tools.example.com:99999/m",
        b"https://me@tools.example.com/m",
        b"https://tools.example.com@evil.example.com/m",
        b"file:///etc/passwd",
        b"https://tools.example.com/\xc3\xbc",
        b"https://[::1/m",
    ],
)
def test_any_other_endpoint_is_refused(named: bytes) -> None:
    assert endpoint_of(STREAM, named) is None


@given(st.binary(max_size=60))
def test_whatever_is_named_messages_stay_at_the_origin(named: bytes) -> None:
    url = endpoint_of(STREAM, named)
    assert url is None or url.lower().startswith(("https://tools.example.com/", "https://tools.example.com:443/"))
