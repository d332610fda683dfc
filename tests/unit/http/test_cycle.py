import asyncio
import gc
import weakref
from types import SimpleNamespace

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.http.cycle import AT_ONCE, Cycle


def connection():
    return SimpleNamespace(
        transport=object(),
        flow=object(),
        logger=object(),
        access_logger=object(),
        server_state=SimpleNamespace(default_headers=[]),
        on_response_complete=lambda: None,
        answer=lambda data: None,
        tasks=set(),
    )


async def test_a_cycle_begins_as_uvicorns_own_does():
    of, scope = connection(), {"method": "POST"}
    own = RequestResponseCycle(
        scope=scope, transport=of.transport, flow=of.flow, logger=of.logger, access_logger=of.access_logger,
        access_log=False, default_headers=of.server_state.default_headers, message_event=asyncio.Event(),
        expect_100_continue=True, keep_alive=False, on_response=of.on_response_complete,
    )  # fmt: skip
    ours = Cycle(of, scope, expects_continue=True, keep_alive=False)
    assert {name: getattr(ours, name) for name in vars(own) if name != "message_event"} == {
        name: value for name, value in vars(own).items() if name != "message_event"
    }
    assert not ours.message_event.is_set()
    assert ours.message_event is ours.message_event


async def test_a_body_that_came_at_once_is_received_once():
    cycle = Cycle(connection(), {"method": "POST"}, body=b"{}")
    assert await cycle.receive() == {"type": "http.request", "body": b"{}", "more_body": False}
    cycle.disconnected = True
    assert await cycle.receive() == {"type": "http.disconnect"}


async def test_a_client_that_has_left_sends_no_body():
    cycle = Cycle(connection(), {"method": "POST"}, body=b"{}")
    cycle.disconnected = True
    assert await cycle.receive() == {"type": "http.disconnect"}


class Written:
    def __init__(self):
        self.writes = []

    def write(self, data):
        self.writes.append(data)


def served(**given):
    of = connection()
    of.transport = Written()
    of.answer = of.transport.write
    of.flow = SimpleNamespace(write_paused=False)
    scope = {"method": "POST"}
    return Cycle(of, scope, **given), scope, of.transport.writes


async def test_a_whole_answer_leaves_in_one_write_and_once():
    cycle, scope, writes = served(body=b"{}")
    assert scope[AT_ONCE](b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok")
    assert cycle.response_complete
    assert not scope[AT_ONCE](b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok")
    assert writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]


async def test_what_has_to_go_the_long_way_does_not_leave_at_once():
    _, scope, writes = served(keep_alive=False)
    assert not scope[AT_ONCE](b"head", b"body")
    left, scope, _ = served()
    left.disconnected = True
    assert not scope[AT_ONCE](b"head", b"body")
    slow, scope, _ = served()
    slow.flow.write_paused = True
    assert not scope[AT_ONCE](b"head", b"body")
    begun, scope, _ = served()
    begun.response_started = True
    assert not scope[AT_ONCE](b"head", b"body")
    assert writes == []


async def test_nothing_of_a_request_waits_for_the_garbage_collector():
    cycle, _, _ = served(body=b"{}")

    async def application(scope, receive, send):
        scope[AT_ONCE](b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok")

    gc.disable()
    try:
        await cycle.run_asgi(application)
        gone = weakref.ref(cycle)
        del cycle
        assert gone() is None
    finally:
        gc.enable()
