"""What reads bytes and definitions of others: whatever comes, it is a value or an error of its own kind."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.http1_connection import HttpConnection, HttpError, HttpResponse
from gateway.backends.sse import EventTooLarge, SseParser
from gateway.definitions.schemas import Exhausting, Unusable, compiled
from gateway.entries import Findings, entries_of
from gateway.errors import InvalidRequest
from gateway.models import Listing
from gateway.protocol.lifecycle import refuse_cursor
from gateway.routes import Routes
from gateway.stores.redis_connection import LOST, _Wire, pack

from ..unit.fakes import AUTH, routes

# Bytes as a server may send them: pieces of the protocol, noise, cut anywhere

cuts = st.lists(st.integers(0, 400), max_size=6)


def pieces(*known: bytes) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(known) | st.binary(max_size=12), max_size=14).map(b"".join)


def chunks(data: bytes, places: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(place for place in places if place < len(data)), len(data)]
    return (data[start:end] for start, end in itertools.pairwise(bounds) if end > start)


class Transport(asyncio.Transport):
    """Takes everything and remembers that it was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        return

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@given(
    pieces(b"data: a\n", b"data:", b"event: message\n", b"\n", b"\r", b"\r\n", b"id: 1\n", b":\n", b"\xef\xbb\xbf"),
    cuts,
)
def test_any_stream_of_events_is_read_the_same_wherever_it_is_cut(data: bytes, places: list[int]) -> None:
    def events(parts: Iterator[bytes]) -> list[bytes] | None:
        parser = SseParser(64)
        try:
            return [event for part in parts for event in parser.feed(part)]
        except EventTooLarge:
            return None

    cut = events(chunks(data, places))
    whole = SseParser(10_000).feed(data)
    assert cut is None or cut == whole
    assert all(len(event) <= 64 for event in cut or ())


REPLIES = pieces(
    b"+OK\r\n", b":1\r\n", b"$3\r\nabc\r\n", b"$-1\r\n", b"*2\r\n", b"-ERR no\r\n", b"-NOSCRIPT x\r\n", b"\r\n"
)


@given(REPLIES, cuts, st.integers(0, 5))
async def test_any_reply_of_redis_answers_each_command_at_most_once_or_costs_the_connection(
    data: bytes, places: list[int], commands: int
) -> None:
    lost: list[str] = []
    wire = _Wire(lambda it: lost.append(it.failure))
    wire.connection_made(Transport())
    waiting = [wire.send(pack("PING")) for _ in range(commands)]
    await asyncio.sleep(0)
    for chunk in chunks(data, places):
        wire.data_received(chunk)
    wire.connection_lost(None)
    assert all(future.done() and future.exception() is None for future in waiting)
    answers = [future.result() for future in waiting]
    first_lost = next((number for number, answer in enumerate(answers) if answer is LOST), len(answers))
    assert all(answer is LOST for answer in answers[first_lost:])
    assert len(lost) == 1


class Nowhere:
    def settled(self, connection: HttpConnection) -> None:
        return

    def dropped(self, connection: HttpConnection) -> None:
        return


RESPONSES = pieces(
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 X\r\n"),
    *(
        b"Content-Length: 5\r\n",
        b"content-length: 0\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Content-Encoding: br\r\n"),
    *(b"Content-Type: text/event-stream\r\n", b"Content-Type: application/json\r\n", b"Connection: close\r\n"),
    *(b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"hello", b"data: x\n\n", b"Upgrade: h2c\r\n"),
)


@given(RESPONSES, cuts, st.booleans())
async def test_any_response_is_one_or_an_error_and_is_bounded(data: bytes, places: list[int], streamed: bool) -> None:
    events: list[bytes] = []

    def taken(event: bytes) -> bool:
        events.append(event)
        return len(events) == 2

    connection = HttpConnection(asyncio.get_running_loop(), Nowhere(), 1000)
    connection.connection_made(Transport())
    later = asyncio.get_running_loop().time() + 60
    waiter = connection.send(b"GET / HTTP/1.1\r\n\r\n", later, 60, later, taken if streamed else None, None)
    for chunk in chunks(data, places):
        connection.data_received(chunk)
    connection.eof_received()
    connection.connection_lost(None)
    assert waiter.done()
    error = waiter.exception()
    assert error is None or isinstance(error, HttpError | httptools.HttpParserError), error
    if error is None:
        response: HttpResponse = waiter.result()
        assert 200 <= response.status < 1000
        assert len(response.body) <= 1000
    assert not connection.usable


# Definitions and schemas as a backend may list them

words = st.sampled_from(
    [
        *("type", "properties", "required", "items", "prefixItems", "additionalProperties", "patternProperties"),
        *("$ref", "$dynamicRef", "$defs", "$id", "$anchor", "$schema", "anyOf", "allOf", "not", "if", "pattern"),
        *("enum", "const", "maxLength", "minItems", "uniqueItems", "multipleOf", "format", "description"),
    ]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["object", "#", "#/$defs/a"])
)
schemas = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
definitions = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "x y", ""]) | scalars,
        "uri": st.sampled_from(["memo://a", "memo://b"]) | scalars,
        "uriTemplate": st.sampled_from(["memo://{a}", "memo://{"]) | scalars,
        "inputSchema": st.fixed_dictionaries({"type": st.just("object"), "properties": schemas}) | schemas,
        "outputSchema": schemas,
        "annotations": schemas,
        "description": scalars,
    },
)
RULES: Routes = routes(AUTH + "routes:\n  - name: one\n    backend: {url: 'http://x.example/mcp'}\n    scopes: []\n")


@given(st.lists(definitions, max_size=4).map(tuple), st.booleans())
def test_any_listing_is_entries_that_can_be_shown_and_findings(of: tuple[Any, ...], over_http: bool) -> None:
    offered = Listing("one", of, 0.0, {"tools": {}}, prompts=of, resources=of, templates=of, over_http=over_http)
    findings = Findings()
    entries = entries_of(RULES.routes[0], offered, "one__", findings)
    shown = sum(map(len, entries.shown.values()))
    assert shown + len(findings.omitted) == 4 * len(of)
    for kind in entries.shown.values():
        for entry in kind.values():
            assert isinstance(json.loads(entry.rendered), dict)


@given(st.dictionaries(words, schemas, max_size=4), schemas)
def test_any_schema_judges_any_arguments_or_is_unusable(schema: dict[str, Any], arguments: Any) -> None:
    with suppress(Unusable, Exhausting):
        validator = compiled(json.dumps(schema).encode())
        assert validator.is_valid(arguments) == (not list(validator.iter_errors(arguments)))


@given(st.dictionaries(st.sampled_from(["cursor", "x"]), schemas))
def test_any_cursor_is_refused_in_the_same_words(params: dict[str, Any]) -> None:
    if "cursor" not in params:
        refuse_cursor(params)
        return
    with pytest.raises(InvalidRequest) as refused:
        refuse_cursor(params)
    assert refused.value.status == 200
