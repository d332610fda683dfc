"""``subscriptions/listen`` on the wire, by the SDK's models."""

import json
from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.http.filters import (
    MAX_LISTENED_URIS,
    MAX_URI_LENGTH,
    Filter,
    acknowledgement,
    list_changed,
    result,
    updated,
)

ID = "io.modelcontextprotocol/subscriptionId"


def message(body: bytes) -> Any:
    assert body.startswith(b"event: message\ndata: ")
    assert body.endswith(b"\n\n")
    return json.loads(body.split(b"data: ", 1)[1])


def test_a_filter_holds_what_is_asked_for_and_is_true() -> None:
    params = {
        "notifications": {
            "toolsListChanged": True,
            "promptsListChanged": False,
            "resourcesListChanged": None,
            "resourceSubscriptions": ["a:1", "a:2", "a:1"],
            "taskIds": ["t"],
        }
    }
    asked = Filter.parse(params)
    assert asked == Filter(frozenset({"tools"}), ("a:1", "a:2"))
    assert asked.on_the_wire() == {"toolsListChanged": True, "resourceSubscriptions": ["a:1", "a:2"]}
    assert Filter.parse({"notifications": {}}).on_the_wire() == {}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": None},
        {"notifications": []},
        {"notifications": {"toolsListChanged": 1}},
        {"notifications": {"toolsListChanged": "yes"}},
        {"notifications": {"resourceSubscriptions": "a:1"}},
        {"notifications": {"resourceSubscriptions": [1]}},
        {"notifications": {"resourceSubscriptions": ["a" * (MAX_URI_LENGTH + 1)]}},
        {"notifications": {"resourceSubscriptions": [str(n) for n in range(MAX_LISTENED_URIS + 1)]}},
    ],
)
def test_what_is_no_filter_is_refused(params: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Filter.parse(params)
    assert caught.value.code == -32602


@pytest.mark.parametrize("request_id", [1, "1", 2**53 - 1, ""])
def test_every_message_of_a_modern_stream_is_one_of_the_schema_with_the_clients_own_id(request_id: Any) -> None:
    ack = message(acknowledgement(request_id, Filter(frozenset({"tools"}), ("a:1",))))
    types.SubscriptionsAcknowledgedNotification.model_validate(ack)
    assert ack["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]}
    types.ToolListChangedNotification.model_validate(message(list_changed("tools", request_id)))
    types.PromptListChangedNotification.model_validate(message(list_changed("prompts", request_id)))
    types.ResourceListChangedNotification.model_validate(message(list_changed("resources", request_id)))
    types.ResourceUpdatedNotification.model_validate(message(updated("a:1", request_id)))
    for body in (ack, message(list_changed("tools", request_id)), message(updated("a:1", request_id))):
        assert body["params"]["_meta"] == {ID: request_id}
        assert type(body["params"]["_meta"][ID]) is type(request_id)
    last = message(result(request_id))
    types.SubscriptionsListenResult.model_validate(last["result"])
    assert last == {"jsonrpc": "2.0", "id": request_id, "result": {"resultType": "complete", "_meta": {ID: request_id}}}


def test_a_legacy_message_has_no_id() -> None:
    assert message(list_changed("tools", None)) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert message(updated("a:1", None))["params"] == {"uri": "a:1"}


@given(st.text())
def test_any_uri_stays_one_event(uri: str) -> None:
    assert message(updated(uri.encode(errors="replace").decode(), 1))["params"]["uri"] is not None
    assert updated(uri.encode(errors="replace").decode(), 1).count(b"\n") == 3
