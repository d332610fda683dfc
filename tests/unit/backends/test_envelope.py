"""What counts as the answer to our request; the modern backend's integration tests have the rest."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.envelope import Exchange, decode, decode_object
from gateway.backends.http1 import HttpResponse

JSON = {b"content-type": b"application/json"}


def exchange(heard: list[Any], *wanted: str) -> Exchange:
    return Exchange(7, lambda method, params: heard.append((method, params)), wanted)


def test_an_answer_counts_with_our_id_alone() -> None:
    for request_id, counts in ((b"7", True), (b'"7"', False), (b"8", False), (b"null", False)):
        body = b'{"jsonrpc":"2.0","id":%b,"result":{}}' % request_id
        assert (exchange([]).message(HttpResponse(200, JSON, body)) is not None) == counts


def test_only_wanted_notifications_are_told() -> None:
    heard: list[Any] = []
    one = exchange(heard, "notifications/progress")
    one.on_event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}')
    one.on_event(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}')
    one.on_event(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"7","progress":2}}')
    assert heard == [("notifications/progress", {"progress": 1})]


def test_a_request_of_the_server_ends_the_exchange_without_an_answer() -> None:
    one = exchange([])
    assert one.on_event(b'{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}')
    assert one.message(HttpResponse(200, {b"content-type": b"text/event-stream"}, b"")) is None


@given(st.binary())
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    decode(data)
    decode_object(data)
    exchange([], "notifications/progress").on_event(data)


def test_deep_nesting_is_no_message() -> None:
    assert decode_object(msgspec.Raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)) is None


def test_half_of_a_surrogate_pair_is_no_message() -> None:
    body = rb'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"%b"}]}}'
    heard = [exchange([]).message(HttpResponse(200, JSON, body % text)) for text in (rb"\ud83d\ude00", rb"\ud83d")]
    assert [message is not None for message in heard] == [True, False]
