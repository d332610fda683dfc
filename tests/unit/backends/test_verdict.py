import pytest
from mcp.shared.exceptions import MCPError

from gateway.backends import verdict
from gateway.backends.link import ConnectionLost, SessionEnded
from gateway.backends.wire import Exchange
from gateway.errors import BackendBusy, BackendUnavailable


def judge(error: MCPError, *, status: int | None = 200, fault: str | None = None) -> tuple[object, bool]:
    """What is relayed or raised, and whether the session was retired."""
    exchange = Exchange()
    exchange.status, exchange.fault = status, fault  # type: ignore[assignment]
    retired: list[bool] = []
    try:
        outcome: object = verdict.of_error("r", exchange, error, retire=lambda: retired.append(True))
    except BackendUnavailable as failure:
        outcome = failure
    return outcome, bool(retired)


@pytest.mark.parametrize("status", [None, 200, 400])
@pytest.mark.parametrize("code", [-32602, -32601, -32002, -32042, 7])
def test_an_error_of_the_backend_is_relayed(code: int, status: int | None) -> None:
    outcome, retired = judge(MCPError(code, "no", {"a": None}), status=status)

    assert outcome == {"code": code, "message": "no", "data": {"a": None}}
    assert not retired


def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    outcome, _ = judge(MCPError(-32603, "Server returned an error response"), status=None, fault="refused")

    assert isinstance(outcome, ConnectionLost)
    assert not outcome.dispatched
    assert outcome.retryable


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MCPError(-32603, "Server returned an error response"), "broken"),
        (MCPError(-32000, "Connection closed"), None),
        (MCPError(-32000, "SSE stream ended without a response"), None),
    ],
)
def test_a_connection_that_ends_after_the_request_left_may_have_executed_it(error: MCPError, fault: str | None) -> None:
    outcome, _ = judge(error, fault=fault)

    assert isinstance(outcome, ConnectionLost)
    assert outcome.dispatched
    assert not outcome.retryable


def test_a_404_ends_the_session_and_nothing_was_executed() -> None:
    outcome, retired = judge(MCPError(-32600, "Session terminated"), status=404)

    assert isinstance(outcome, SessionEnded)
    assert not outcome.dispatched
    assert retired


@pytest.mark.parametrize("code", [-32000, -32600, -32603])
def test_a_400_of_the_transport_retires_the_session_and_is_not_repeated(code: int) -> None:
    outcome, retired = judge(MCPError(code, "Bad Request: Server not initialized"), status=400)

    assert isinstance(outcome, BackendUnavailable)
    assert not isinstance(outcome, SessionEnded)
    assert outcome.dispatched
    assert retired


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_gateway_itself_is_not_relayed_and_not_worth_a_retry(status: int) -> None:
    outcome, _ = judge(MCPError(-32001, "Unauthorized"), status=status)

    assert isinstance(outcome, BackendUnavailable)
    assert not outcome.dispatched
    assert not outcome.retryable


def test_too_many_requests_is_busy() -> None:
    outcome, _ = judge(MCPError(-32603, "x"), status=429)

    assert isinstance(outcome, BackendBusy)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_5xx_is_no_answer_even_with_an_error_in_it(status: int) -> None:
    outcome, _ = judge(MCPError(-32602, "http://internal:9000 failed"), status=status)

    assert isinstance(outcome, BackendUnavailable)
    assert outcome.dispatched
    assert "internal" not in outcome.message


@pytest.mark.parametrize(
    "message",
    ["Unexpected content type: text/html", "server answered a request with 202 Accepted", "Redirect to http://x"],
)
def test_what_is_no_mcp_is_unusable(message: str) -> None:
    outcome, _ = judge(MCPError(-32600, message))

    assert isinstance(outcome, BackendUnavailable)
    assert "http" not in outcome.message
