import pytest
from mcp.shared.message import ServerMessageMetadata

from gateway.backends.running import Running, unheard
from gateway.backends.senders import level_of, logs_to, lowest, origin_of
from gateway.backends.wire import Exchange
from gateway.models import BackendRequest, Principal


def running(level: str | None, exchange: Exchange | None = None) -> Running:
    call = Running(BackendRequest("tools/call", {}, Principal(issuer="", subject="s"), log_level=level), unheard)
    call.exchange = exchange
    return call


@pytest.mark.parametrize(
    ("levels", "least"), [(["error", "info", None], "info"), (["debug"], "debug"), ([None, "loud"], None), ([], None)]
)
def test_the_least_severe_level_that_anyone_wants_is_the_one_of_the_session(
    levels: list[str | None], least: str | None
) -> None:
    assert lowest(levels) == least


async def test_a_message_goes_to_the_call_on_whose_stream_it_came() -> None:
    one, two = Exchange(), Exchange()
    calls = [running("info", one), running("error", two)]

    assert logs_to(calls, one, level_of({"level": "info"})) is calls[0]
    assert logs_to(calls, two, level_of({"level": "info"})) is None
    assert logs_to(calls, two, level_of({"level": "alert"})) is calls[1]


async def test_a_message_of_no_stream_goes_to_the_only_call_there_is() -> None:
    calls = [running("info"), running("info")]

    assert logs_to(calls[:1], None, level_of({"level": "info"})) is calls[0]
    assert logs_to(calls, None, level_of({"level": "info"})) is None
    assert logs_to([], None, 0) is None


@pytest.mark.parametrize("params", [{}, {"level": "loud"}, {"level": None}])
async def test_a_message_without_a_known_level_is_for_nobody(params: dict[str, object]) -> None:
    assert logs_to([running("debug")], None, level_of(params)) is None


async def test_a_call_that_asked_for_no_messages_gets_none() -> None:
    assert logs_to([running(None)], None, level_of({"level": "emergency"})) is None


def test_a_message_is_from_the_exchange_that_the_transport_names() -> None:
    exchange = Exchange()

    assert origin_of(ServerMessageMetadata(request_context=exchange)).exchange is exchange
    assert origin_of(None).exchange is None
