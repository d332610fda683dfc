import asyncio
import json
import re

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.http.cycle import AT_ONCE
from gateway.http.server import MAX_HEAD_BYTES, GatewayProtocol, _known_path_of

REQUEST = b"GET /mcp HTTP/1.1\r\nhost: x\r\n\r\n"


class FakeTransport:
    """Keeps what is written, write by write."""

    def __init__(self):
        self.writes = []
        self.closed = False

    def write(self, data):
        if data:
            self.writes.append(bytes(data))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return {"peername": ("10.0.0.1", 5000), "sockname": ("10.0.0.2", 80)}.get(name, default)

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Timer:
    def __init__(self, at, callback, arguments):
        self.at, self.callback, self.arguments, self.over = at, callback, arguments, False

    def cancel(self):
        self.over = True


class FakeClock:
    """The loop as a connection uses it, with a time of its own."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def create_task(self, work):
        return asyncio.get_running_loop().create_task(work)

    def call_soon(self, callback, *arguments):
        return asyncio.get_running_loop().call_soon(callback, *arguments)

    def call_later(self, seconds, callback, *arguments):
        self.timers.append(Timer(self.now + seconds, callback, arguments))
        return self.timers[-1]

    def running(self):
        return [timer for timer in self.timers if not timer.over]

    def advance(self, seconds):
        self.now += seconds
        for timer in self.running():
            if timer.at <= self.now:
                timer.over = True
                timer.callback(*timer.arguments)


class Connection:
    """A connection to an application."""

    def __init__(self, application):
        config = uvicorn.Config(
            application, http=GatewayProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        config.load()
        self.clock = FakeClock()
        self.transport = FakeTransport()
        self.state = ServerState()
        self.protocol = GatewayProtocol(config, self.state, {}, _loop=self.clock)
        self.protocol.connection_made(self.transport)

    async def send(self, data):
        """Give it bytes and let it finish what it can."""
        self.protocol.data_received(data)
        while self.state.tasks:
            await asyncio.wait(list(self.state.tasks))
        await asyncio.sleep(0)  # answers leave at the end of a turn
        return self.transport.writes


def answering(headers, *bodies):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in bodies[:-1]:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": bodies[-1]})

    return application


def heads(writes):
    return b"".join(writes).split(b"\r\n\r\n")[0].split(b"\r\n")


def at_once(scope, body):
    return scope[AT_ONCE](b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body)


async def served(scope, receive, send):
    assert at_once(scope, scope["path"].encode())


async def test_answers_of_one_turn_leave_at_its_end():
    connections = [Connection(served) for _ in range(3)]
    order = []
    for connection in connections:
        connection.transport.write = order.append
        connection.protocol.data_received(REQUEST)
    while not all(connection.protocol.cycle.response_complete for connection in connections):
        assert not order
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(order) == 3


async def test_nothing_overtakes_an_answer_that_waits_for_the_end_of_its_turn():
    """What a client sends behind its request is refused, answered or the end of it, always behind the answer."""
    refused = Connection(served)
    rest = b"no request\r\n\r\n"

    async def answers(scope, receive, send):
        assert at_once(scope, b"first")
        refused.protocol.data_received(rest)

    refused.protocol.app = answers
    writes = b"".join(await refused.send(REQUEST))
    assert [part[:6] for part in writes.split(b"HTTP/1.1 ")[1:]] == [b"200 OK", b"400 Ba"]
    assert refused.transport.closed


@pytest.mark.parametrize("ending", ["the client sends no more", "the server ends"])
async def test_an_answer_that_was_given_leaves_although_the_connection_ends(ending):
    connection = Connection(served)

    async def answers(scope, receive, send):
        assert at_once(scope, b"first")
        if ending == "the server ends":
            connection.protocol.shutdown()
        elif not connection.protocol.eof_received():
            connection.transport.close()  # as asyncio does it

    connection.protocol.app = answers
    (written,) = await connection.send(REQUEST)
    assert written.endswith(b"first")


async def test_requests_in_one_packet_are_answered_in_their_order_at_once_or_not():
    async def answers(scope, receive, send):
        if scope["path"] == "/slow":
            await answering([(b"content-length", b"5")], b"/slow")(scope, receive, send)
        else:
            assert at_once(scope, scope["path"].encode())

    connection = Connection(answers)
    paths = [b"/a", b"/slow", b"/b", b"/slow", b"/c"]
    writes = await connection.send(b"".join(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths))
    assert re.findall(rb"\r\n\r\n(/[a-z]+)", b"".join(writes)) == paths


async def test_a_whole_answer_leaves_in_one_write():
    connection = Connection(answering([(b"x-a", b"1"), (b"content-length", b"2")], b"ok"))
    expected = b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok"
    assert await connection.send(REQUEST) == [expected]
    assert await connection.send(REQUEST) == [expected, expected]
    assert not connection.transport.closed


async def test_a_stream_is_sent_as_it_comes():
    writes = await Connection(answering([(b"content-type", b"text/event-stream")], b"one", b"two")).send(REQUEST)
    assert b"transfer-encoding: chunked" in heads(writes)
    assert writes[1:3] == [b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n"]


async def test_the_answer_to_head_has_no_body():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    writes = await connection.send(REQUEST.replace(b"GET", b"HEAD"))
    assert b"".join(writes) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def test_an_answer_without_content_keeps_the_connection():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    connection = Connection(application)
    assert b"".join(await connection.send(REQUEST)) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert not connection.transport.closed


@pytest.mark.parametrize(
    ("request_bytes", "headers"),
    [
        (REQUEST.replace(b"host", b"connection: close\r\nhost"), [(b"content-length", b"2")]),
        (REQUEST, [(b"connection", b"close"), (b"content-length", b"2")]),
    ],
)
async def test_a_connection_that_either_side_ends_is_closed_after_the_answer(request_bytes, headers):
    connection = Connection(answering(headers, b"ok"))
    writes = await connection.send(request_bytes)
    assert heads(writes).count(b"connection: close") == 1
    assert connection.transport.closed


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb"])
async def test_a_header_cannot_start_another_line(value):
    connection = Connection(answering([(b"x-a", value), (b"content-length", b"2")], b"ok"))
    assert await connection.send(REQUEST) == []
    assert connection.transport.closed


@pytest.mark.parametrize("length", [b"1", b"3"])
async def test_a_wrong_length_is_never_claimed_silently(length):
    connection = Connection(answering([(b"content-length", length)], b"ok"))
    await connection.send(REQUEST)
    assert connection.transport.closed


async def test_requests_that_come_at_once_are_answered_in_their_order():
    async def application(scope, receive, send):
        body = scope["path"].encode()
        await answering([(b"content-length", b"%d" % len(body))], body)(scope, receive, send)

    writes = await Connection(application).send(REQUEST.replace(b"/mcp", b"/a") + REQUEST.replace(b"/mcp", b"/b"))
    assert [write[-2:] for write in writes] == [b"/a", b"/b"]


async def test_a_client_that_hangs_up_ends_its_request():
    ended = asyncio.Event()

    async def application(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    connection = Connection(application)
    connection.protocol.data_received(REQUEST)
    await asyncio.sleep(0)
    connection.protocol.connection_lost(None)
    await asyncio.wait_for(ended.wait(), 5)
    assert connection.transport.writes == []
    assert connection.clock.running() == []


async def test_a_connection_is_closed_when_it_has_rested_long_enough_and_not_before():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    await connection.send(REQUEST)
    connection.clock.advance(70)
    await connection.send(REQUEST)
    connection.clock.advance(70)
    assert not connection.transport.closed
    connection.clock.advance(6)
    assert connection.transport.closed


async def test_a_connection_at_work_is_not_closed_for_resting():
    go_on = asyncio.Event()

    async def application(scope, receive, send):
        if scope["path"] == "/slow":
            await go_on.wait()
        await answering([(b"content-length", b"2")], b"ok")(scope, receive, send)

    connection = Connection(application)
    await connection.send(REQUEST)
    connection.protocol.data_received(REQUEST.replace(b"/mcp", b"/slow"))
    connection.clock.advance(76)
    connection.clock.advance(76)
    assert not connection.transport.closed
    go_on.set()
    await connection.send(b"")
    assert len(connection.transport.writes) == 2
    connection.clock.advance(76)
    connection.clock.advance(76)
    assert connection.transport.closed


async def test_answers_set_no_timer_each():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    for _ in range(20):
        await connection.send(REQUEST)
    assert len(connection.clock.timers) == 2


async def test_a_head_that_grows_without_an_end_is_refused():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    writes = await connection.send(REQUEST[:-2] + b"x-a: " + b"a" * MAX_HEAD_BYTES + b"\r\n")
    assert heads(writes)[0].startswith(b"HTTP/1.1 431 ")
    assert json.loads(b"".join(writes).split(b"\r\n\r\n")[1])["error"]["code"] == 431
    assert connection.transport.closed


@pytest.mark.parametrize("whole", [True, False])
async def test_a_large_head_is_refused_wherever_its_packets_are_cut(whole):
    served = []

    async def application(scope, receive, send):
        served.append(len(scope["headers"]))
        await answering([(b"content-length", b"2")], b"ok")(scope, receive, send)

    connection = Connection(application)
    await connection.send(REQUEST)
    large = REQUEST[:-2] + b"".join(b"x-%d: %b\r\n" % (number, b"a" * 4000) for number in range(9)) + b"\r\n"
    for packet in [REQUEST + large + REQUEST] if whole else [REQUEST + large[:30_000], large[30_000:] + REQUEST]:
        await connection.send(packet)
    assert served == [1, 1]
    assert connection.transport.closed


async def test_an_application_that_fails_ends_the_connection_without_a_status(caplog):
    async def application(scope, receive, send):
        raise LookupError("told to the log")

    connection = Connection(application)
    assert await connection.send(REQUEST) == []
    assert connection.transport.closed
    assert "told to the log" in caplog.text


CHUNKED = b"POST /mcp HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize("name", [b"authorization", b"x-forwarded-for", b"host", b"x-new"])
async def test_a_trailer_is_never_taken_for_a_header(name):
    seen = []

    async def application(scope, receive, send):
        seen.append((await receive(), scope["headers"]))
        await answering([(b"content-length", b"2")], b"ok")(scope, receive, send)

    connection = Connection(application)
    for _ in range(2):
        await connection.send(CHUNKED + name + b": forged\r\n\r\n")
    expected = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
    assert [(message["body"], headers) for message, headers in seen] == [(b"{}", expected)] * 2


async def test_trailers_without_an_end_are_refused():
    async def application(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    connection = Connection(application)
    connection.protocol.data_received(CHUNKED + b"x-a: ")
    for _ in range(5):
        connection.protocol.data_received(b"a" * 8000)
    assert connection.transport.closed
    assert heads(connection.transport.writes)[0].startswith(b"HTTP/1.1 431 ")
    connection.protocol.connection_lost(None)
    await asyncio.wait(list(connection.state.tasks))


async def test_a_long_body_is_no_trailer():
    sizes = []

    async def application(scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        sizes.append(size)
        await answering([(b"content-length", b"2")], b"ok")(scope, receive, send)

    connection = Connection(application)
    connection.protocol.data_received(CHUNKED.partition(b"2\r\n{}")[0])
    for _ in range(3 * MAX_HEAD_BYTES // 600):
        connection.protocol.data_received(b"258\r\n" + b"a" * 600 + b"\r\n")
        await asyncio.sleep(0)
    await connection.send(b"0\r\n\r\n")
    assert sizes == [3 * MAX_HEAD_BYTES // 600 * 600]


async def test_long_targets_are_served_and_not_remembered():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    _known_path_of.cache_clear()
    for number in range(3):
        writes = await connection.send(REQUEST.replace(b"/mcp", b"/mcp?%d" % number + b"a" * 10_000))
        assert writes[-1].endswith(b"ok")
    assert _known_path_of.cache_info().currsize == 0


POST = b"POST /mcp HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n%b"


@pytest.mark.parametrize("cut", [None, 30, -3, -30])
async def test_the_body_of_a_request_that_would_change_the_protocol_is_no_request(cut):
    seen = []

    async def application(scope, receive, send):
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        seen.append((scope["method"], scope["path"], body))
        await answering([(b"content-length", b"2")], b"ok")(scope, receive, send)

    connection = Connection(application)
    packets = POST % (len(REQUEST), REQUEST)
    for packet in [packets * 3] if cut is None else [packets[:cut], packets[cut:] + REQUEST]:
        connection.protocol.data_received(packet)
        await asyncio.sleep(0)
    await connection.send(REQUEST)
    upgrading, plain = ("POST", "/mcp", REQUEST), ("GET", "/mcp", b"")
    assert seen == ([upgrading] * 3 if cut is None else [upgrading, plain]) + [plain]
    assert not connection.transport.closed


async def test_very_many_of_them_at_once_are_read_one_after_the_other():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    writes = await connection.send(POST % (2, b"{}") * 3_000)
    assert b"".join(writes).count(b"HTTP/1.1 200 OK") == 3_000


async def test_a_tunnel_is_not_opened():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    writes = await connection.send(b"CONNECT /mcp HTTP/1.1\r\nhost: x\r\n\r\n" + REQUEST)
    assert heads(writes)[0].startswith(b"HTTP/1.1 400 ")
    assert b"".join(writes).count(b"HTTP/1.1") == 1
    assert connection.transport.closed


async def test_a_large_head_is_refused_of_them_too():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    await connection.send(REQUEST)
    head = POST[:-4] % 2 + b"".join(b"x-%d: %b\r\n" % (number, b"a" * 4000) for number in range(9)) + b"\r\n{}"
    connection.protocol.data_received(head[:30_000])
    writes = await connection.send(head[30_000:])
    assert b"HTTP/1.1 431 " in writes[-1]
    assert connection.transport.closed


async def test_what_is_no_http_behind_one_of_them_is_refused():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    connection.protocol.data_received(POST % (2, b"{}") + b"no http\r\n\r\n")
    assert connection.transport.closed


async def test_what_fails_behind_an_application_is_logged_and_ends_its_connection_alone(caplog):
    async def fails(scope, receive, send):
        raise RuntimeError("broken")

    connection = Connection(fails)
    assert await connection.send(REQUEST) == []
    assert connection.transport.closed
    (record,) = caplog.records
    assert "outside the pipeline" in record.message
    assert "broken" in caplog.text


async def test_a_request_whose_client_leaves_before_it_has_begun_keeps_nobody_waiting():
    connection = Connection(answering([(b"content-length", b"2")], b"ok"))
    connection.protocol.data_received(REQUEST)
    connection.protocol.connection_lost(None)
    await asyncio.wait(list(connection.state.tasks))
    await asyncio.sleep(0)
    assert connection.transport.writes == []
    assert connection.state.tasks == set()
