"""Floods of bad requests are bounded by address and cost nobody else; addresses are those behind our own proxies."""

import ipaddress
import uuid
from collections.abc import Iterator

import httpx2
import pytest

from .harness import Client, Gateway, running, until
from .servers.raw_http import RawBackend
from .wire import metric

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: []
"""


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("floods")
    environ = {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1", "GATEWAY_AUTH_FAILURES_PER_MINUTE": "30"}
    with running(folder, ROUTES.format(url=backend.url), **environ) as gateway:
        yield gateway


@pytest.fixture
def address() -> str:
    """Nobody has sent anything from there; in the one spelling that the record has."""
    return str(ipaddress.ip_address(f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"))


def _send(client: Client, address: str) -> httpx2.Response:
    return client.call("raw__verbatim", X_Forwarded_For=address)


def _forged(served: Gateway, number: int) -> Client:
    token = served.token(subject=str(number))
    return Client(served.url, token[:-8] + "AAAAAAAA")


def _statuses(served: Gateway, address: str, times: int) -> list[int]:
    return [_send(_forged(served, number), address).status_code for number in range(times)]


def test_forged_tokens_are_judged_up_to_a_bound_and_known_tokens_go_on(served: Gateway, address: str) -> None:
    client = served.client(subject=uuid.uuid4().hex)
    assert _send(client, address).status_code == 200
    statuses = _statuses(served, address, 12)
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    reply = _send(_forged(served, 99), address)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["data"]["code"]) == (429, 429, "rate_limited")
    assert 1 <= int(reply.headers["retry-after"]) <= 2
    assert "Too many requests from this address" in error["message"]
    assert [_send(client, address).status_code for _ in range(20)] == [200] * 20


def test_after_a_flood_a_new_token_of_the_same_address_has_its_turn(served: Gateway, address: str) -> None:
    assert 429 in _statuses(served, address, 12)
    client = served.client(subject=uuid.uuid4().hex)
    until(lambda: _send(client, address).status_code == 200, 5)


def test_requests_without_a_token_never_stand_in_the_way_of_a_new_one(served: Gateway, address: str) -> None:
    nobody = Client(served.url, None)
    statuses = [_send(nobody, address).status_code for _ in range(12)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    assert _send(served.client(subject=uuid.uuid4().hex), address).status_code == 200


def test_a_flood_from_one_address_is_no_matter_of_another(served: Gateway, address: str) -> None:
    assert 429 in _statuses(served, address, 12)
    assert _send(_forged(served, 1), "198.51.100.77").status_code == 401
    assert _send(served.client(subject=uuid.uuid4().hex), "198.51.100.77").status_code == 200


def test_of_a_flood_every_refusal_is_counted_and_a_few_are_recorded(served: Gateway, address: str) -> None:
    before = metric(served, "mcp_gateway_requests_total", outcome="rate_limited")
    refused = _statuses(served, address, 40).count(429)
    assert refused >= 30
    assert metric(served, "mcp_gateway_requests_total", outcome="rate_limited") - before == refused

    def records() -> list[str]:
        return [
            record["rule"]
            for record in served.records()
            if record["client_address"] == address and record["outcome"] == "rate_limited"
        ]

    until(records)
    assert 1 <= len(records()) < refused / 2
    assert records()[0] == "GATEWAY_AUTH_FAILURES_PER_MINUTE"


def test_the_audit_has_the_clients_address_as_our_proxy_saw_it(served: Gateway) -> None:
    client = served.client()
    reply = client.call("raw__verbatim", X_Forwarded_For="203.0.113.7, 198.51.100.9")
    request_id = reply.headers["x-request-id"]
    found = until(lambda: [it for it in served.records() if it["request_id"] == request_id and it["outcome"]])
    assert found[0]["client_address"] == "198.51.100.9"
