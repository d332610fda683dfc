"""Legacy clients (Python SDK 1.x, TypeScript SDK 1.x) before a server that refuses everything but the modern era."""

import json
import uuid
from typing import Any

from .conftest import LegacyClient


def text_of(result: dict[str, Any]) -> str:
    assert not result.get("isError"), result
    text: str = result["content"][0]["text"]
    return text


def heard(said: dict[str, Any], method: str) -> list[dict[str, Any]]:
    return [each["params"] for each in said["heard"] if each["method"] == method]


def test_a_session_is_opened_and_each_request_carries_what_it_holds(legacy_client: LegacyClient) -> None:
    said = legacy_client(["call", "stats", {}])
    assert said["revision"] == "2025-11-25"
    assert {"elicitation", "sampling", "roots"} <= json.loads(text_of(said["results"][0]))["capabilities"].keys()
    unable = legacy_client(["call", "stats", {}], able=False)
    assert json.loads(text_of(unable["results"][0]))["capabilities"] == {}


def test_results_have_nothing_of_the_new_era(legacy_client: LegacyClient) -> None:
    said = legacy_client(["list", "tools"], ["call", "stats", {}], ["read", "memo://one"], ["list", "prompts"])
    for result in said["results"]:
        assert not {"resultType", "ttlMs", "cacheScope"} & result.keys()
    assert said["results"][2]["contents"][0]["text"] == "one"


def test_prompts_and_completion_cross(legacy_client: LegacyClient) -> None:
    said = legacy_client(["prompt", "greet", {"name": "Bob"}], ["complete", "greet", {"name": "name", "value": "x"}])
    assert "Hello Bob" in json.dumps(said["results"][0])
    assert said["results"][1]["completion"]["values"] == ["xa"]


def test_structured_content_that_is_no_object_is_left_to_the_text(legacy_client: LegacyClient) -> None:
    (result,) = legacy_client(["call", "array", {}])["results"]
    assert text_of(result) == "[1, 2]"
    assert "structuredContent" not in result


def test_questions_are_put_on_the_stream_of_the_call(legacy_client: LegacyClient) -> None:
    said = legacy_client(["call", "ask", {}], ["call", "ask_everything", {}])
    assert text_of(said["results"][0]) == "Bob one"
    assert text_of(said["results"][1]) == "sampled file:///project accept"
    assert sorted(said["asked"]) == [
        "elicitation/create form",
        "elicitation/create url",
        "roots/list",
        "sampling/createMessage",
    ]


def test_a_result_that_asks_for_nothing_but_a_retry_is_retried(legacy_client: LegacyClient) -> None:
    assert text_of(legacy_client(["call", "later", {}])["results"][0]) == "now"


def test_what_the_client_did_not_declare_is_told_to_its_agent(legacy_client: LegacyClient) -> None:
    said = legacy_client(["call", "ask", {}], able=False)
    assert said["results"][0]["isError"] is True
    assert said["asked"] == []


def test_a_subscription_tells_of_the_resource_and_of_lists(legacy_client: LegacyClient) -> None:
    said = legacy_client(
        ["subscribe", "memo://one"],
        ["call", "announce", {"uri": "memo://one"}],
        ["pause", 10],
        ["unsubscribe", "memo://one"],
    )
    assert all("error" not in result for result in said["results"]), said
    assert [params["uri"] for params in heard(said, "notifications/resources/updated")][:1] == ["memo://one"]


def test_log_messages_come_at_the_level_that_was_set(legacy_client: LegacyClient) -> None:
    said = legacy_client(["level", "info"], ["call", "chat", {}])
    assert "error" not in said["results"][0]
    assert [params["level"] for params in heard(said, "notifications/message")] == ["info", "error"]


def test_progress_reaches_the_client(legacy_client: LegacyClient) -> None:
    said = legacy_client(["call", "steps", {}])
    assert [params["progress"] for params in heard(said, "progress")] == [0, 1, 2]


def test_ping_is_answered_and_roots_that_change_are_accepted(legacy_client: LegacyClient) -> None:
    said = legacy_client(["ping"], ["roots_changed"], ["ping"])
    assert all("error" not in result for result in said["results"])


def test_a_cancelled_call_is_cancelled_at_the_server(legacy_client: LegacyClient) -> None:
    before = json.loads(text_of(legacy_client(["call", "stats", {}])["results"][0]))["cancelled"]
    said = legacy_client(["cancel", "hang"], ["call", "stats", {}])
    assert "error" in said["results"][0]
    assert json.loads(text_of(said["results"][1]))["cancelled"] > before


def test_an_unknown_tool_is_an_error_that_the_client_can_read(legacy_client: LegacyClient) -> None:
    (result,) = legacy_client(["call", f"none-{uuid.uuid4().hex}", {}])["results"]
    assert result["error"]["code"] == -32602
