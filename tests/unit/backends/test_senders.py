from collections.abc import Mapping
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from gateway.backends.running import Running
from gateway.backends.senders import Callers, level_of, lowest, origin_of
from gateway.backends.wire import Exchange
from gateway.models import BackendRequest, Principal


class World:
    """The calls of one session, the progress they are told, and how often it was unclear in which the backend asked."""

    def __init__(self) -> None:
        self.unclear = 0
        self.told: list[tuple[Running, Mapping[str, Any]]] = []
        self.callers = Callers("tools", self._unclear)

    def _unclear(self) -> None:
        self.unclear += 1

    def running(self, level: str | None = None, exchange: Exchange | None = None, *, may_ask: bool = False) -> Running:
        principal = Principal(issuer="", subject="s")
        request = BackendRequest("tools/call", {}, principal, log_level=level, wants_progress=True)
        call = Running(request, lambda _method, params: self.told.append((call, params)), may_ask=may_ask)
        call.exchange = exchange
        self.callers.add(call)
        return call


@pytest.mark.parametrize(
    ("levels", "least"), [(["error", "info", None], "info"), (["debug"], "debug"), ([None, "loud"], None), ([], None)]
)
def test_the_least_severe_level_that_anyone_wants_is_the_one_of_the_session(
    levels: list[str | None], least: str | None
) -> None:
    assert lowest(levels) == least


async def test_a_message_goes_to_the_call_on_whose_stream_it_came() -> None:
    world, one, two = World(), Exchange(), Exchange()
    first, second = world.running("info", one), world.running("error", two)

    assert world.callers.level == "info"
    assert world.callers.logs_to(one, level_of({"level": "info"})) is first
    assert world.callers.logs_to(two, level_of({"level": "info"})) is None
    assert world.callers.logs_to(two, level_of({"level": "alert"})) is second


async def test_a_message_of_no_stream_goes_to_the_only_call_there_is() -> None:
    world = World()
    assert world.callers.logs_to(None, 0) is None

    first = world.running("info")
    assert world.callers.logs_to(None, level_of({"level": "info"})) is first

    second = world.running("info")
    assert world.callers.logs_to(None, level_of({"level": "info"})) is None
    world.callers.remove(first)
    assert world.callers.logs_to(None, level_of({"level": "info"})) is second


@pytest.mark.parametrize("params", [{}, {"level": "loud"}, {"level": None}])
async def test_a_message_without_a_known_level_is_for_nobody(params: dict[str, object]) -> None:
    world = World()
    world.running("debug")
    assert world.callers.logs_to(None, level_of(params)) is None


async def test_a_call_that_asked_for_no_messages_gets_none() -> None:
    world = World()
    world.running(None)
    assert world.callers.logs_to(None, level_of({"level": "emergency"})) is None


async def test_progress_is_told_by_a_token_that_no_two_calls_share() -> None:
    world = World()
    first, second = world.running(), world.running()

    world.callers.progressed({"progressToken": second.token, "progress": 1})
    for token in (second.token + 1, str(first.token), None, [1]):
        world.callers.progressed({"progressToken": token, "progress": 2})
    world.callers.progressed({})

    assert world.told == [(second, {"progress": 1})]


async def test_a_question_is_of_the_call_it_came_with() -> None:
    world, one = World(), Exchange()
    first, _ = world.running(exchange=one, may_ask=True), world.running(exchange=Exchange(), may_ask=True)

    assert world.callers.asker(one) is first
    assert world.unclear == 0


async def test_a_question_of_no_stream_is_of_the_only_call_that_may_ask_or_is_refused_and_noted() -> None:
    world = World()
    world.running()
    with pytest.raises(MCPError, match="answers only within a call"):
        world.callers.asker(None)

    may_ask = world.running(may_ask=True)
    assert world.callers.asker(None) is may_ask

    world.running(may_ask=True)
    with pytest.raises(MCPError, match="cannot tell which call asks"):
        world.callers.asker(None)
    assert world.unclear == 3


async def test_what_a_client_did_not_declare_is_told_to_the_one_call_it_can_be_of() -> None:
    world, one = World(), Exchange()
    first, second = world.running(exchange=one), world.running(exchange=Exchange())

    world.callers.lack(one, {"elicitation": {}})
    world.callers.lack(None, {"sampling": {}})

    assert (first.undeclared, second.undeclared) == ({"elicitation": {}}, None)


def test_a_message_is_from_the_exchange_that_the_transport_names() -> None:
    exchange = Exchange()

    assert origin_of(ServerMessageMetadata(request_context=exchange)).exchange is exchange
    assert origin_of(None).exchange is None
