import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.credentials.tokens import LONGEST, UNSAID, Token, TokenRefusedError, read_token
from gateway.egress.documents import UnusableError


def answer(**members: Any) -> bytes:
    return json.dumps({"access_token": "abc", "token_type": "Bearer", **members}).encode()


def test_a_token_ends_when_the_answer_says() -> None:
    token = read_token(200, answer(expires_in=3600, refresh_token="r"), now=100.0)
    assert (token.value, token.expires_at, token.refresh_token) == ("abc", 3700.0, "r")
    assert token.stale_at == 3670.0


@pytest.mark.parametrize(
    ("said", "seconds"), [({}, UNSAID), ({"expires_in": "60"}, 60.0), ({"expires_in": 1e12}, LONGEST)]
)
def test_a_lifetime_that_is_unsaid_or_text_or_endless_is_bounded(said: dict[str, Any], seconds: float) -> None:
    assert read_token(200, answer(**said), now=0.0).expires_at == seconds


def test_a_short_token_is_used_for_most_of_its_life() -> None:
    token = read_token(200, answer(expires_in=10), now=0.0)
    assert token.stale_at == 9.0


@pytest.mark.parametrize("kind", ["bearer", "BEARER"])
def test_the_type_ignores_case(kind: str) -> None:
    assert read_token(200, answer(token_type=kind), now=0.0).value == "abc"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        answer(access_token=None),
        answer(access_token=""),
        answer(access_token="a b"),
        answer(access_token="a\r\nX: y"),
        answer(access_token="é"),
        answer(access_token="x" * 70_000),
        answer(token_type="N_A"),
        answer(token_type="mac"),
        answer(token_type=None),
        answer(expires_in=-1),
        answer(expires_in=True),
        answer(expires_in="soon"),
        b'{"access_token":"a","access_token":"b","token_type":"Bearer"}',
    ],
)
def test_what_no_header_can_carry_or_is_no_bearer_token_is_unusable(body: bytes) -> None:
    with pytest.raises(UnusableError) as caught:
        read_token(200, body, now=0.0)
    assert "a b" not in str(caught.value)


@pytest.mark.parametrize("status", [201, 302, 404, 429, 500, 503])
def test_a_status_of_no_token_endpoint_is_unusable(status: int) -> None:
    with pytest.raises(UnusableError, match=str(status)):
        read_token(status, answer(), now=0.0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":"invalid_client","error_description":"secret"}', "invalid_client"),
        (b"<html>", "HTTP status 400"),
        (b'{"error":"bad\\nline"}', "HTTP status 400"),
        (b'{"error":7}', "HTTP status 400"),
    ],
)
def test_a_refusal_has_the_servers_code_and_nothing_else_of_it(body: bytes, code: str) -> None:
    with pytest.raises(TokenRefusedError) as caught:
        read_token(400, body, now=0.0)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    assert "abc" not in repr(Token("abc", 1.0, 1.0, "abc"))


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_is_a_token_or_says_why_not(status: int, body: bytes) -> None:
    with suppress(TokenRefusedError, UnusableError):
        assert read_token(status, body, now=0.0).value
