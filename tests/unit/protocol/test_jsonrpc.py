"""What is one JSON-RPC message, and what is none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import INVALID_PARAMS, INVALID_REQUEST, InvalidRequest
from gateway.protocol import jsonrpc


def _message(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **members}


def test_a_request_has_an_id_and_a_notification_has_none() -> None:
    assert jsonrpc.read(_message(id=7, method="ping")) == jsonrpc.Request(7, "ping", {})
    assert jsonrpc.read(_message(method="notifications/x", params={"a": 1})) == jsonrpc.Notification(
        "notifications/x", {"a": 1}
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "x",
        [],
        {},
        {"id": 1, "method": "ping"},
        _message(id=1),
        _message(id=None, method="ping"),
        _message(id=True, method="ping"),
        _message(id=1.5, method="ping"),
        _message(id=[1], method="ping"),
        _message(id="x" * 1025, method="ping"),
        _message(id=2**2000, method="ping"),
        _message(id=1, method=""),
        _message(id=1, method=5),
        _message(id=1, method="ping", Method="tools/call"),
        _message(id=1, METHOD="ping"),
        _message(id=1, method="tools/call", params={"name": "a", "Name": "b"}),
        _message(id=1, method="tools/call", params={"arguments": {}, "ARGUMENTS": {}}),
        _message(id=1, result={}, error={}),
        _message(id=1, method="ping", result={}),
        _message(method="notifications/x", error={}),
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
    ],
)
def test_what_is_no_message_is_an_invalid_request(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        jsonrpc.read(value)
    assert (caught.value.code, caught.value.status) == (INVALID_REQUEST, 400)


@pytest.mark.parametrize("params", [[], "x", 1, None])
def test_params_that_are_no_object_are_invalid_params(params: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        jsonrpc.read(_message(id=1, method="ping", params=params))
    assert caught.value.code == INVALID_PARAMS


@given(st.from_type(object) | st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_any_value_is_a_message_or_a_refusal(value: Any) -> None:
    try:
        jsonrpc.read(value)
    except InvalidRequest:
        return
    pytest.fail("nothing random is a message")


def test_the_id_is_found_as_far_as_it_can_be_read() -> None:
    assert jsonrpc.id_of({"id": "a"}) == "a"
    assert jsonrpc.id_of({"id": True}) is None
    assert jsonrpc.id_of([]) is None


def test_arguments_of_a_tool_may_differ_in_case_only() -> None:
    message = _message(id=1, method="tools/call", params={"name": "t", "arguments": {"Id": 1, "id": 2}})
    assert isinstance(jsonrpc.read(message), jsonrpc.Request)
