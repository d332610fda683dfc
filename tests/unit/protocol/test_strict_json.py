"""A body has one reading or none."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import INVALID_REQUEST, PARSE_ERROR, InvalidRequest
from gateway.protocol import strict_json

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_what_json_can_say_unambiguously_is_read_as_said(value: object) -> None:
    assert strict_json.parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


@given(_JSON)
def test_white_space_and_escapes_change_nothing_of_what_is_read(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert strict_json.parse(text.encode("utf-8", "surrogatepass")) == strict_json.parse(json.dumps(value).encode())


@given(st.lists(st.tuples(st.sampled_from(["a", "\b", "e5", "é"]), _JSON), max_size=3), st.booleans())
def test_a_key_that_comes_twice_is_refused_however_the_body_is_written(
    pairs: list[tuple[str, object]], spaced: bool
) -> None:
    between = ", " if spaced else ","
    written = between.join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs)
    body = b'{"args":[{%b}]}' % written.encode()
    if len(dict(pairs)) == len(pairs):
        assert strict_json.parse(body) == {"args": [dict(pairs)]}
        return
    with pytest.raises(InvalidRequest) as caught:
        strict_json.parse(body)
    assert caught.value.rule == "protocol.duplicate_key"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    refused = None
    try:
        strict_json.parse(body)
    except InvalidRequest as refusal:
        refused = refusal
    assert refused is None or (refused.status == 400 and refused.code in (PARSE_ERROR, INVALID_REQUEST))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,}',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"\\u0061":2}}',
        b'[{"deep":[{"k":1,"k":1}]}]',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1E+999}',
        b'{"a":' + b"9" * 400 + b".5}",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        '{"a":1}'.encode("utf-16"),
        b"{} {}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":"\n"}',
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        strict_json.parse(body)
    assert caught.value.code == PARSE_ERROR


def test_integers_of_any_size_stay_exact() -> None:
    assert strict_json.parse(b'{"a":%d}' % 2**200) == {"a": 2**200}


@pytest.mark.parametrize("depth", [64, 65, 300, 5000])
def test_nesting_is_bounded_whatever_the_depth(depth: int) -> None:
    body = b"[" * depth + b"]" * depth
    if depth <= strict_json.MAX_DEPTH:
        strict_json.parse(body)
        return
    with pytest.raises(InvalidRequest):
        strict_json.parse(body)


def test_many_shallow_objects_are_not_taken_for_deep_ones() -> None:
    assert len(strict_json.parse(b"[" + b",".join([b"{}"] * 500) + b"]")) == 500


def test_a_large_exponent_inside_a_string_is_no_number() -> None:
    assert strict_json.parse(b'{"a":"1e999"}') == {"a": "1e999"}


def test_a_refusal_repeats_nothing_of_the_body() -> None:
    with pytest.raises(InvalidRequest) as caught:
        strict_json.parse(b'{"hunter2":1,"hunter2":2}')
    assert "hunter2" not in caught.value.message


def test_members_keep_the_bytes_they_are_written_in() -> None:
    raw = strict_json.members(b'{"a": {"x" : 1.0e2, "n":null}, "b":123456789012345678901234567890}')
    assert bytes(raw["a"]) == b'{"x" : 1.0e2, "n":null}'
    assert strict_json.encode({"c": raw["a"]}) == b'{"c":{"x" : 1.0e2, "n":null}}'
    assert isinstance(raw["b"], msgspec.Raw)


def test_a_finite_number_with_a_long_exponent_is_allowed() -> None:
    assert math.isclose(strict_json.parse(b'{"a":1e300}')["a"], 1e300)
