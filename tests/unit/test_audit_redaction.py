import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import REDACTED, AuditEvent, Encoder, parse_path
from gateway.audit.redaction import ARGUMENTS_LIMIT, TooLargeError, redact

CANARY = "canary7f3a"
SECRET_NAMES = [
    "password", "PASSWD", "db_password", "client-secret", "apiKey", "x-api-key", "API_KEY", "Authorization",
    "set-cookie", "aws_credentials", "private_key", "accessToken", "refresh_token", "tokens", "passphrase",
]  # fmt: skip


def line_of(arguments: dict[str, Any], redact_paths: tuple[str, ...] = (), mode: Any = "full") -> str:
    event = AuditEvent("r", arguments=arguments, redact=redact_paths)
    return "{" + Encoder(mode, b"k" * 32).encode(event, "request", 0.0).decode("ascii") + "}"


def wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(max_size=5)
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(names, inner, min_size=1, max_size=3),
        st.tuples(names, inner, names, st.integers()).map(lambda t: {t[0] + "1": t[1], t[2] + "2": t[3]}),
    )


@given(st.sampled_from(SECRET_NAMES), st.recursive(st.just(CANARY), wrapped, max_leaves=5), st.data())
def test_a_canary_under_a_secret_name_is_never_written_at_any_depth(name, secret, data):
    arguments = data.draw(st.recursive(st.just({name: secret}), wrapped, max_leaves=6))
    assert CANARY not in line_of({"outer": arguments})


@pytest.mark.parametrize(
    ("paths", "arguments", "expected"),
    [
        (("arguments.a.pin",), {"a": {"pin": 1, "b": 2}, "pin": 3}, {"a": {"pin": REDACTED, "b": 2}, "pin": 3}),
        (("arguments.*.pin",), {"a": {"pin": 1}, "b": [{"pin": 2}]}, {"a": {"pin": REDACTED}, "b": [{"pin": 2}]}),
        (("arguments.items[*].card",), {"items": [{"card": 1, "n": 2}]}, {"items": [{"card": REDACTED, "n": 2}]}),
        (("arguments.items[1]",), {"items": ["a", "b"]}, {"items": ["a", REDACTED]}),
        (("arguments",), {"a": 1}, REDACTED),
        (("arguments..a",), {"a": 1}, REDACTED),
    ],
)
def test_redact_paths_hide_what_they_name_and_unreadable_ones_hide_everything(paths, arguments, expected):
    assert redact(arguments, paths) == expected


@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from([*SECRET_NAMES, "Bearer x", "max_tokens"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.sampled_from(["eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Bearer abc", "x" * 2000]),
        max_size=20,
    )
)
def test_flat_arguments_are_redacted_as_they_are_inside_others(arguments):
    try:
        within = redact({"outer": [arguments]})["outer"][0]
    except TooLargeError:
        return
    assert redact(arguments) == within


@pytest.mark.parametrize("path", ["", "password", "arguments.", "arguments..a", "arguments.a[x]", "arguments.a]"])
def test_a_path_that_cannot_be_read_is_an_error(path):
    with pytest.raises(ValueError, match="arguments"):
        parse_path(path)


def test_a_path_is_split_into_names_and_indices():
    assert parse_path("arguments.items[*].card") == ("items", "*", "card")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln!", "see [redacted]!"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: [redacted]"),
        ("x" * 1020 + "Bearer topsecret", "x" * 1020 + "Bear[cut, 12 more characters]"),
        ("the bearer", "the bearer"),
        ("enjoyment", "enjoyment"),
    ],
)
def test_token_like_values_are_taken_out_of_strings(text, expected):
    assert redact({"note": text}) == {"note": expected}


def test_token_like_names_are_redacted_too():
    assert list(redact({"Bearer abcdef": 1})) == [REDACTED]


def test_amounts_of_tokens_are_no_secrets():
    assert redact({"max_tokens": 100, "token": 100}) == {"max_tokens": 100, "token": REDACTED}


def test_values_that_json_does_not_have_are_hidden():
    assert redact({"a": object()}) == {"a": REDACTED}


@pytest.mark.parametrize("arguments", [{"a": ["x" * 1000] * 10}, {"a": [None] * 3000}, {"k" * 9000: 1}])
def test_arguments_over_the_limit_are_too_large(arguments):
    with pytest.raises(TooLargeError):
        redact(arguments)


def test_too_deep_arguments_are_too_large():
    nested: Any = 1
    for _ in range(70):
        nested = [nested]
    with pytest.raises(TooLargeError):
        redact({"a": nested})


def test_large_arguments_are_written_as_their_digest():
    written = json.loads(line_of({"text": ["y" * 900] * 20}))["arguments"]
    assert set(written) == {"sha256", "bytes"}
    assert written["bytes"] > ARGUMENTS_LIMIT


def test_arguments_that_grow_over_the_limit_by_escaping_are_written_as_their_digest():
    assert set(json.loads(line_of({"text": ["\x01" * 900] * 3}))["arguments"]) == {"sha256", "bytes"}


def test_digests_are_keyed_and_do_not_depend_on_the_order_of_names():
    def digest(arguments: dict[str, int], key: bytes | None) -> str:
        body = Encoder("digest", key).encode(AuditEvent("r", arguments=arguments), "request", 0.0)
        return json.loads(b"{" + body + b"}")["arguments"]["sha256"]

    assert digest({"a": 1, "b": 2}, b"k") == digest({"b": 2, "a": 1}, b"k")
    assert len({digest({"a": 1}, key) for key in (b"k", b"l", None)}) == 3


def test_mode_none_writes_no_arguments():
    assert json.loads(line_of({"a": 1}, mode="none"))["arguments"] is None


def test_integers_of_any_size_are_written():
    assert json.loads(line_of({"a": 10**40}))["arguments"] == {"a": 10**40}
