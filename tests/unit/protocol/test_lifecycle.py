"""What the gateway answers itself: greetings, discovery, lists."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types
import msgspec
import pytest

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.protocol import jsonrpc, lifecycle, revisions, strict_json

INFO = lifecycle.server_info("1.2.3")
OFFERED = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}, "logging": {}}


def initialize(**params: Any) -> jsonrpc.Request:
    return jsonrpc.Request(1, "initialize", params)


def plain(parts: dict[str, Any]) -> Any:
    return json.loads(strict_json.encode(parts))


def test_the_server_info_names_the_gateway_and_its_version() -> None:
    assert msgspec.json.decode(INFO) == {"name": "mcp-gateway", "title": "MCP gateway", "version": "1.2.3"}


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("", "2025-11-25"),
        ("nonsense", "2025-11-25"),
    ],
)
def test_a_revision_that_is_not_served_is_answered_with_the_latest_of_its_era(asked: str, answered: str) -> None:
    revision, capabilities, info = lifecycle.negotiate(initialize(protocolVersion=asked, capabilities={"roots": {}}))
    assert (revision, capabilities, info) == (answered, {"roots": {}}, None)


def test_the_client_info_is_kept_and_one_of_another_type_is_not() -> None:
    assert lifecycle.negotiate(initialize(protocolVersion="2025-11-25", clientInfo={"name": "c"}))[2] == {"name": "c"}
    assert lifecycle.negotiate(initialize(protocolVersion="2025-11-25", clientInfo="c"))[2] is None


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"protocolVersion": 5},
        {"protocolVersion": None},
        {"protocolVersion": "2025-11-25", "capabilities": []},
        {"protocolVersion": "2025-11-25", "capabilities": None},
    ],
)
def test_an_incomplete_initialize_is_invalid_params(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lifecycle.negotiate(initialize(**params))
    assert caught.value.code == INVALID_PARAMS


def test_the_answer_to_initialize_is_one_of_the_schema_and_promises_what_is_offered() -> None:
    result = plain(lifecycle.initialize_result("2025-11-25", OFFERED, INFO))
    types.InitializeResult.model_validate(result)
    assert result["protocolVersion"] == "2025-11-25"
    assert result["capabilities"] == {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "completions": {},
        "logging": {},
    }


def test_nothing_is_promised_that_no_backend_has() -> None:
    for result in (
        lifecycle.initialize_result("2025-11-25", {"tools": {}}, INFO),
        lifecycle.discover_result({"tools": {}}),
    ):
        assert set(result["capabilities"]) == {"tools"}


def test_discovery_names_modern_versions_only_and_is_kept_by_nobody() -> None:
    result = lifecycle.discover_result(OFFERED)
    assert result["supportedVersions"] == ["2026-07-28"]
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


def test_a_list_has_the_definitions_as_they_are_and_is_private() -> None:
    rendered = [b'{"name":"a" , "n":1.0}', b'{"name":"b"}']
    result = lifecycle.list_result("tools", rendered, [])
    assert bytes(result["tools"]) == b'[{"name":"a" , "n":1.0},{"name":"b"}]'
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")
    assert "_meta" not in result


def test_an_empty_list_is_a_list() -> None:
    assert plain(lifecycle.list_result("prompts", [], []))["prompts"] == []


def test_a_list_names_the_routes_whose_part_is_stale() -> None:
    assert lifecycle.list_result("tools", [], ["deploy"])["_meta"] == {revisions.STALE: ["deploy"]}


@pytest.mark.parametrize("cursor", ["", "x", None, 5])
def test_a_cursor_is_never_one_of_ours(cursor: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lifecycle.refuse_cursor({"cursor": cursor})
    assert (caught.value.code, caught.value.status) == (INVALID_PARAMS, 200)


def test_a_list_without_a_cursor_is_served() -> None:
    lifecycle.refuse_cursor({})
