"""A question says which backend asks, and loses nothing of what the backend wrote."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import asked, revisions

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def decoded(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


@pytest.mark.parametrize("as_is", [raw, lambda value: value])
def test_every_question_names_the_route_beside_what_the_backend_says(as_is: Any) -> None:
    requests = {
        "a": {"method": "elicitation/create", "params": {"message": "m", "_meta": {"x": 1.0, "io.mcp-gateway/y": 2}}},
        "b": {"method": "roots/list", "extra": None},
    }
    found = decoded(asked.by("deploy", {"inputRequests": as_is(requests), "requestState": "s"}))
    assert found == {
        "requestState": "s",
        "inputRequests": {
            "a": {
                "method": "elicitation/create",
                "params": {"message": "m", "_meta": {"x": 1.0, revisions.ROUTE: "deploy"}},
            },
            "b": {"method": "roots/list", "extra": None, "params": {"_meta": {revisions.ROUTE: "deploy"}}},
        },
    }


def test_numbers_of_a_question_stay_as_they_are_written() -> None:
    requests = msgspec.Raw(b'{"a":{"method":"x","params":{"n":1.50,"big":123456789012345678901}}}')
    written = msgspec.json.encode(asked.by("r", {"inputRequests": requests}))
    assert b'"n":1.50,"big":123456789012345678901' in written


@given(st.dictionaries(st.sampled_from(["inputRequests", "requestState"]), values))
def test_what_has_another_shape_stays_as_it_is(result: dict[str, Any]) -> None:
    found = decoded(asked.by("r", {name: raw(value) for name, value in result.items()}))
    requests = result.get("inputRequests")
    for key, request in requests.items() if isinstance(requests, dict) else ():
        if not isinstance(request, dict):
            assert found["inputRequests"][key] == request
    if not isinstance(requests, dict):
        assert found == result
