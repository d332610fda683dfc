import json
import timeit
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password":"a b\\"c","n":1}', '{"password":"[redacted]","n":1}'),
        ('{"outer":"{\\"api_key\\":\\"a b\\",\\"n\\":1}"}', '{"outer":"{\\"api_key\\":\\"[redacted]\\",\\"n\\":1}"}'),
        ('{"credentials":{"user":"a","pin":"b"}} tail', '{"credentials":[redacted]'),
        ('{"client_secret":"cut in the mid', '{"client_secret":"[redacted]"'),
        ("user=alice&db-password=hunter2&x=1", "user=alice&db-password=[redacted]&x=1"),
        ("token: abc\nname: web", "token: [redacted]\nname: web"),
        ("{:api_key => 'k', :n => 1}", "{:api_key => '[redacted]', :n => 1}"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [redacted]"),
        ("Cookie: a=b; c=d\nAccept: x", "Cookie: [redacted]\nAccept: x"),
        ("https://alice:hunter2@host/path", "https://alice:[redacted]@host/path"),
        ("https://host/?access_token=abc&page=2", "https://host/?access_token=[redacted]&page=2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc=\n-----END RSA PRIVATE KEY-----",
         "-----BEGIN RSA PRIVATE KEY-----[redacted]-----END RSA PRIVATE KEY-----"),
        ("use ghp_0123456789abcdefghij here", "use [redacted] here"),
        ("AKIA0123456789ABCDEF", "[redacted]"),
        ('{"max_tokens":100,"n":"12:30"}', '{"max_tokens":100,"n":"12:30"}'),
        ("the secret of tokens = many", "the secret of tokens = [redacted]"),
        ("at 12:30, see https://host:8080/key", "at 12:30, see https://host:8080/key"),
    ],
)  # fmt: skip
def test_secrets_inside_of_texts_are_taken_out(text, expected):
    assert redact({"note": text}) == {"note": expected}


@given(
    st.sampled_from(SECRET_NAMES),
    st.sampled_from([CANARY, f"{CANARY} x", f'"{CANARY}', [CANARY], {"a": [{"b": CANARY}]}]),
    st.integers(1, 3),
    st.integers(0, 40),
)
def test_a_canary_in_json_within_json_is_never_written(name, secret, depth, before):
    value: Any = {"n": "x" * before, name: secret, "after": 1}
    for _ in range(depth):
        value = {"text": json.dumps(value)}
    assert CANARY not in line_of(value)


@given(st.sampled_from(SECRET_NAMES), st.sampled_from(["name", "key"]))
def test_the_value_of_something_that_another_member_names_is_hidden(name, member):
    assert redact({member: name, "value": CANARY}) == {member: name, "value": REDACTED}
    assert redact({"env": [{member: name, "value": CANARY}]}) == {"env": [{member: name, "value": REDACTED}]}
    assert redact({member: "city", "value": "Berlin"}) == {member: "city", "value": "Berlin"}


@pytest.mark.parametrize("text", ["token" * 205, 'token="' * 150, "password\\" * 100, "://a:" * 200, "=token:" * 150])
def test_a_text_made_to_be_slow_is_searched_in_milliseconds(text):
    quick = min(timeit.repeat(lambda: redact({"a": "x" * 1024 + "=token"}), number=1, repeat=5))
    assert min(timeit.repeat(lambda: redact({"a": text}), number=1, repeat=5)) < max(1000 * quick, 0.02)


def test_the_uri_of_a_resource_is_written_without_its_secrets():
    uri = f"https://alice:{CANARY}@host/file?api_key={CANARY}"
    body = Encoder().encode(AuditEvent("r", tool=uri, backend_tool=uri), "request", 0.0)
    assert CANARY.encode() not in body
    assert b"https://alice:[redacted]@host/file?api_key=[redacted]" in body


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
