"""What a setting says, the process does; those that other files are about are not repeated here."""

import re
from collections.abc import Callable, Iterator

import pytest

from .harness import Client, Gateway, running
from .servers.raw_http import RawBackend
from .wire import Open, refusal

ROUTES = """
routes:
  - {{name: raw, backend: {{url: "{url}"}}, scopes: [raw]}}
"""
ENVIRON = {
    "GATEWAY_ALLOWED_HOSTS": "mcp.example.com",
    "GATEWAY_ALLOWED_ORIGINS": "https://app.example.com",
    "GATEWAY_HEADER_TIMEOUT_SECONDS": "1",
    "GATEWAY_BODY_TIMEOUT_SECONDS": "1",
    "GATEWAY_MAX_RESPONSE_BYTES": "9000",
    "GATEWAY_METRICS_TOKEN": "of-the-scraper",
    "GATEWAY_LOG_LEVEL": "warning",
}


@pytest.fixture(scope="module")
def told_otherwise(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with other values than the defaults."""
    with running(tmp_path_factory.mktemp("settings"), ROUTES.format(url=backend.url), **ENVIRON) as gateway:
        yield gateway


@pytest.fixture
def client(told_otherwise: Gateway) -> Client:
    return told_otherwise.client("raw")


def test_hosts_and_origins_that_are_allowed_are_served_and_others_are_not(client: Client) -> None:
    def status(**headers: str) -> int:
        return client.call("raw__verbatim", **headers).status_code

    assert status(Host="mcp.example.com") == status(Origin="https://app.example.com") == 200
    assert (status(Host="other.example.com"), status(Origin="https://other.example.com")) == (421, 403)


@pytest.mark.parametrize("body", [b"", b"Content-Length: 5\r\n\r\n{"], ids=["head", "body"])
def test_what_does_not_arrive_in_time_is_a_408(told_otherwise: Gateway, client: Client, body: bytes) -> None:
    fields = client.headers(Host="localhost").items()
    head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    assert _exchanged(told_otherwise, head.encode() + body).startswith(b"HTTP/1.1 408 ")


def _exchanged(served: Gateway, request: bytes) -> bytes:
    """Everything that comes until the gateway closes the connection, in far less time than the defaults give."""
    exchange = Open(served.port, request)
    with exchange.connection as connection:
        connection.settimeout(5)
        return exchange.rest()


def test_no_answer_of_a_backend_is_larger_whatever_its_route_takes(client: Client, backend: RawBackend) -> None:
    usual = backend.state.answer
    backend.state.answer = b'{"content":[],"resultType":"complete","x":"%s"}' % (b"x" * 9000)
    try:
        said = refusal(client.call("raw__verbatim"))
    finally:
        backend.state.answer = usual
    assert (said["code"], said["dispatched"]) == ("backend_unavailable", True)
    assert "too large" in str(said)
    assert client.call("raw__verbatim").json()["result"]["content"]


def _metrics(served: Gateway, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in ("Host: localhost", "Connection: close", *headers))
    return _exchanged(served, f"GET /metrics HTTP/1.1\r\n{lines}\r\n".encode())


def test_metrics_are_open_unless_a_token_is_set(
    told_otherwise: Gateway, client: Client, gateway: Callable[..., Gateway], backend: RawBackend
) -> None:
    for wrong in ("X: y", "Authorization: Bearer of-the-scrape", f"Authorization: Bearer {client.token}"):
        refused = _metrics(told_otherwise, wrong)
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert b"www-authenticate: Bearer" in refused
        assert b"mcp_gateway" not in refused
    assert b"mcp_gateway_build_info" in _metrics(told_otherwise, "Authorization: Bearer of-the-scraper")
    usual = gateway(ROUTES.format(url=backend.url))
    assert b"mcp_gateway_build_info" in _metrics(usual)
    assert re.search('"level": ?"info"', usual.log)
    assert not re.search('"level": ?"info"', told_otherwise.log)
