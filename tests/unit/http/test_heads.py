import asyncio
import json
from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.cycle import AT_ONCE
from gateway.http.heads import BODY, KEPT, NOTES, Heads
from gateway.http.server import GatewayProtocol

from .test_server import Connection


def request(body=b"{}", *extra, head=b"POST /mcp HTTP/1.1"):
    lines = [head, b"host: x", *extra, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Seeing:
    """An application that keeps what it was asked, and answers with the body."""

    def __init__(self):
        self.asked = []
        self.notes = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body, more = body + message["body"], message["more_body"]
        self.notes.append(scope.pop(NOTES, None))
        assert scope.pop(BODY, body) == body
        assert scope.pop(AT_ONCE).__self__.scope is scope
        self.asked.append(({**scope, "headers": [*scope["headers"]]}, bytes(body)))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def connected(monkeypatch=None):
    application = Seeing()

    async def serve(scope, receive, send):
        await application(scope, receive, send)

    return application, Connection(serve)


class Read:
    """Counts the heads that a parser reads."""

    def __init__(self, monkeypatch):
        self.count = 0
        real = GatewayProtocol.on_headers_complete

        def counted(protocol):
            self.count += 1
            real(protocol)

        monkeypatch.setattr(GatewayProtocol, "on_headers_complete", counted)


async def test_a_head_that_came_before_is_not_read_again_and_means_the_same(monkeypatch):
    read = Read(monkeypatch)
    application, connection = connected()
    for body in (b"{}", b"{}", b'{"a":1}', b"x" * 300):
        await connection.send(request(body))
    assert read.count == 2  # the first of a connection is never kept
    scopes = [scope for scope, _ in application.asked]
    lengths = [b"2", b"2", b"7", b"300"]
    for scope, length in zip(scopes, lengths, strict=True):
        assert scope == {**scopes[0], "headers": [(b"host", b"x"), (b"content-length", length)]}
    assert [body for _, body in application.asked] == [b"{}", b"{}", b'{"a":1}', b"x" * 300]
    assert b"".join(connection.transport.writes).count(b"HTTP/1.1 200 OK") == 4


async def test_notes_stay_with_a_head_and_reach_no_other_head_or_connection():
    application, connection = connected()
    for _ in range(4):
        await connection.send(request())
    for _ in range(3):
        await connection.send(request(b"{}", b"authorization: Bearer other"))
    first, second = application.notes[2], application.notes[6]
    assert application.notes[3] is first
    assert first is not None
    assert second is not None
    assert second is not first
    other_application, other = connected()
    for _ in range(3):
        await other.send(request())
    assert other_application.notes[2] is not first


async def test_an_application_cannot_change_what_the_next_request_says():
    application, connection = connected()

    async def changing(scope, receive, send):
        await application(scope, receive, send)
        scope["headers"].append((b"x-mine", b"1"))
        scope["path"] = "/other"

    connection = Connection(changing)
    for _ in range(4):
        await connection.send(request())
    assert {scope["path"] for scope, _ in application.asked} == {"/mcp"}
    assert all(len(scope["headers"]) == 2 for scope, _ in application.asked)


async def test_only_so_many_heads_are_kept(monkeypatch):
    read = Read(monkeypatch)
    application, connection = connected()
    await connection.send(request())
    for number in range(KEPT + 3):
        await connection.send(request(b"{}", b"x-number: %d" % number))
    read.count = 0
    await connection.send(request(b"{}", b"x-number: 0"))
    assert read.count == 1
    await connection.send(request(b"{}", b"x-number: %d" % (KEPT + 2)))
    assert read.count == 1
    assert len(application.asked) == KEPT + 6


async def test_a_request_that_ends_the_connection_or_wants_an_interim_answer_is_read_every_time(monkeypatch):
    read = Read(monkeypatch)
    for extra in (b"expect: 100-continue", b"transfer-encoding: chunked"):
        _, connection = connected()
        read.count = 0
        body = b"2\r\n{}\r\n0\r\n\r\n" if b"chunked" in extra else b"{}"
        whole = b"POST /mcp HTTP/1.1\r\nhost: x\r\n" + extra + b"\r\n"
        whole += b"" if b"chunked" in extra else b"content-length: 2\r\n"
        for _ in range(4):
            await connection.send(whole + b"\r\n" + body)
        assert read.count == 4
    _, connection = connected()
    for _ in range(3):
        await connection.send(request())
    await connection.send(request(b"{}", b"connection: close"))
    assert connection.transport.closed


async def test_a_known_head_behind_a_request_that_is_not_answered_yet_waits_for_its_turn():
    application, connection = connected()
    for number in range(3):
        await connection.send(request(b"%d" % number))
    connection.protocol.data_received(request(b"slow"))
    connection.protocol.data_received(request(b"next"))
    await connection.send(request(b"last"))
    assert [body for _, body in application.asked][3:] == [b"slow", b"next", b"last"]
    answers = b"".join(connection.transport.writes)
    assert answers.index(b"slow") < answers.index(b"next") < answers.index(b"last")


PIECES = st.lists(
    st.sampled_from(
        [
            request(),
            request(b'{"jsonrpc":"2.0"}'),
            request(b"{}", b"x-a: 1"),
            request(b"", b"x-a: 1"),
            request(b"\r\n\r\ncontent-length: 2\r\n\r\n{}"),
            request() + request(b"both"),
            request()[:-1],
            request(b"{}", head=b"GET /mcp HTTP/1.1"),
            request(b"{}", b"transfer-encoding: chunked"),
            request(b"{}", b"Content-Length: 2"),
            request(b"{}", b"connection: close"),
            request(b"{}", b"connection: upgrade", b"upgrade: h2c"),
            b"\r\n",
            b"POST /mcp HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            b"{}",
        ]
    ),
    max_size=12,
)


class Forgetful(Heads):
    def keep(self, data, scope):
        pass


async def test_a_body_that_comes_later_and_in_parts_is_the_body(monkeypatch):
    read = Read(monkeypatch)
    application, connection = connected()
    for _ in range(2):
        await connection.send(request())
    whole = request(b"0123456789")
    for at in range(len(whole) - 10, len(whole)):
        connection.protocol.data_received(whole[:at])
        assert [timer for timer in connection.clock.running() if timer.callback == connection.protocol._end]
        for byte in whole[at:-1]:
            connection.protocol.data_received(bytes([byte]))
        await connection.send(whole[-1:])
        assert not [timer for timer in connection.clock.running() if timer.callback == connection.protocol._end]
    assert read.count == 2
    assert [body for _, body in application.asked][2:] == [b"0123456789"] * 10


async def test_a_body_that_does_not_come_in_time_ends_the_connection():
    _, connection = connected()
    for _ in range(3):
        await connection.send(request())
    connection.protocol.data_received(request(b"0123456789")[:-1])
    connection.clock.advance(GatewayProtocol.body_timeout)
    assert connection.transport.writes[-1].startswith(b"HTTP/1.1 408 ")
    assert connection.transport.closed
    connection.protocol.connection_lost(None)
    await asyncio.sleep(0)


async def test_what_comes_behind_a_body_is_the_next_request():
    application, connection = connected()
    for _ in range(3):
        await connection.send(request())
    connection.protocol.data_received(request(b"0123456789")[:-1])
    await connection.send(b"9" + request(b"next") + request(b"last"))
    assert [body for _, body in application.asked][3:] == [b"0123456789", b"next", b"last"]


async def told(pieces, *, remembering):
    application, connection = connected()
    if not remembering:
        connection.protocol._heads = Forgetful()
    for piece in pieces:
        if not connection.transport.closed:
            connection.protocol.data_received(piece)
        for _ in range(20):  # a part of a request waits for the rest
            await asyncio.sleep(0)
    connection.protocol.connection_lost(None)
    for _ in range(20):
        await asyncio.sleep(0)
    asked = [json.dumps([{k: repr(v) for k, v in scope.items()}, repr(body)]) for scope, body in application.asked]
    return asked, b"".join(connection.transport.writes), connection.transport.closed


@settings(max_examples=300)
@given(pieces=PIECES, data=st.data())
async def test_what_is_remembered_changes_nothing_of_what_is_served(pieces, data):
    cut = data.draw(st.lists(st.integers(0, 80), max_size=len(pieces)))
    parts = [
        part for piece, at in zip_longest(pieces, cut[: len(pieces)], fillvalue=0) for part in (piece[:at], piece[at:])
    ]
    parts = [part for part in parts if part]
    assert await told(parts, remembering=True) == await told(parts, remembering=False)
