import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import AuditEvent, Encoder, ResultsMode, result_digest
from gateway.audit.results import NO_RESULT, Results

KEY = b"k" * 32
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("result"), inner),
)


def answer(request_id: Any, result: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def fields(mode: ResultsMode, body: bytes, key: bytes | None = KEY) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"{" + Results(mode, key).fields(body)[1:] + b"}")
    return found


@given(st.text() | st.just('"result":') | st.integers(0, 2**53), JSON)
def test_size_and_digest_are_those_of_the_result_whatever_a_client_calls_its_request(
    request_id: Any, result: Any
) -> None:
    sent = msgspec.json.encode(result)
    assert fields("digest", answer(request_id, result)) == {
        "result_bytes": len(sent),
        "result_digest": result_digest(KEY, sent),
    }
    assert fields("size", answer(request_id, result)) == {"result_bytes": len(sent), "result_digest": None}
    assert fields("none", answer(request_id, result)) == {"result_bytes": None, "result_digest": None}


def test_digests_are_keyed() -> None:
    assert result_digest(None, b"{}") == hashlib.sha256(b"{}").hexdigest()
    assert len({result_digest(key, b"{}") for key in (None, b"a" * 32, b"b" * 32)}) == 3


def test_an_answer_without_a_result_has_none() -> None:
    assert Results("digest", KEY).fields(b'{"jsonrpc":"2.0","id":1,"error":{}}') == NO_RESULT


@pytest.mark.parametrize("mode", ["size", "digest", "none"])
def test_only_the_outcome_has_them(mode: ResultsMode) -> None:
    encoder, event = Encoder("full", KEY, mode), AuditEvent("r")
    intent = json.loads(b"{" + encoder.encode(event, "intent", 0.0) + b"}")
    event.answer = answer(1, {"content": []})
    outcome = json.loads(b"{" + encoder.encode(event, "outcome", 0.0) + b"}")
    assert (intent["result_bytes"], intent["result_digest"]) == (None, None)
    assert outcome["result_bytes"] == (None if mode == "none" else len(b'{"content":[]}'))
    assert (outcome["result_digest"] is None) == (mode != "digest")
