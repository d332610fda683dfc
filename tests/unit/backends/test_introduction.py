"""What a request to a modern backend says of itself."""

from typing import Any

import msgspec
import pytest

from gateway.backends.introduction import Introductions
from gateway.models import ANONYMOUS, BackendRequest
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION

INFO = {"name": "mcp-gateway", "version": "1"}
PLAIN = {
    PROTOCOL_VERSION: "2026-07-28",
    CLIENT_CAPABILITIES: {"sampling": {}},
    CLIENT_INFO: INFO,
    "io.mcp-gateway/client-info": {"name": "c"},
}


def _request(**more: Any) -> BackendRequest:
    given: dict[str, Any] = {"capabilities": {"sampling": {}}, "client_info": {"name": "c"}, **more}
    return BackendRequest("tools/call", {}, ANONYMOUS, **given)


def _said(introductions: Introductions, request: BackendRequest) -> Any:
    return msgspec.json.decode(msgspec.json.encode(introductions.of(request, 7)))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {}),
        ({"wants_progress": True}, {"progressToken": 7}),
        ({"log_level": "info"}, {"io.modelcontextprotocol/logLevel": "info"}),
        ({"meta": {"com.example/a": 1}}, {"com.example/a": 1}),
        ({"meta": {PROTOCOL_VERSION: "1", "progressToken": 1, "io.mcp-gateway/x": 1}}, {}),
    ],
)
def test_it_says_who_speaks_for_whom_and_what_crosses(more: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _said(Introductions(INFO), _request(**more)) == PLAIN | expected


def test_a_client_without_a_name_is_given_none() -> None:
    said = _said(Introductions(INFO), _request(client_info=None))
    assert said == {name: value for name, value in PLAIN.items() if name != "io.mcp-gateway/client-info"}


def test_each_client_is_introduced_as_itself_however_many_there_are() -> None:
    introductions = Introductions(INFO)
    clients = [_request(client_info={"name": str(number)}) for number in range(600)]
    for _ in range(2):
        for number, request in enumerate(clients):
            assert _said(introductions, request)["io.mcp-gateway/client-info"] == {"name": str(number)}
    again = introductions.of(clients[-1], 8)
    assert again is introductions.of(clients[-1], 9)
