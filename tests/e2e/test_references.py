"""What a name, a URI or a reference leads to: to its owner under whatever name, and through a toolset nowhere else."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.integration.servers.start import http_server

from .harness import Client, Gateway, running, until
from .wire import ENVELOPE, opened

ROUTES = """
routes:
  - {{name: modern, backend: {{url: "{modern}"}}, scopes: []}}
  - {{name: legacy, backend: {{url: "{legacy}"}}, scopes: []}}
toolsets:
  some: {{routes: [modern], tools: ["modern__[ls]*"]}}
"""
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
OWNERS = pytest.mark.parametrize("owner", ["modern", "legacy"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with (
        http_server("--modern", "--scheme", "modern", program="asking.py") as modern,
        http_server("--scheme", "legacy", program="asking.py") as legacy,
        running(tmp_path_factory.mktemp("refs"), ROUTES.format(modern=modern.url, legacy=legacy.url)) as gateway,
    ):
        until(lambda: {"modern__link", "legacy__link"} <= set(gateway.client().tools()))
        yield gateway


def _client(served: Gateway, era: str, subject: str, toolset: str = "") -> Client:
    client = Client(served.url + toolset, served.token(subject=subject))
    if era == "legacy":
        client.initialize()
    return client


def _ask(client: Client, method: str, params: dict[str, Any]) -> httpx2.Response:
    if client.session is not None:
        return client.legacy(method, params, Accept="application/json")
    return client.modern(method, params, **({"Mcp_Name": params["uri"]} if "uri" in params else {}))


def _complete(kind: str, name: str) -> dict[str, Any]:
    key = "name" if kind == "ref/prompt" else "uri"
    return {"ref": {"type": kind, key: name}, "argument": {"name": "name", "value": "x"}}


@ERAS
@OWNERS
def test_a_resource_link_leads_to_the_backend_that_named_it(served: Gateway, era: str, owner: str) -> None:
    client, uri = _client(served, era, f"linked-{era}-{owner}"), f"{owner}://unlisted"
    assert "There is no resource" in _ask(client, "resources/read", {"uri": uri}).text
    linked = _ask(client, "tools/call", {"name": f"{owner}__link", "arguments": {"uri": uri}}).json()["result"]
    assert linked["content"][0]["uri"] == uri
    (read,) = _ask(client, "resources/read", {"uri": uri}).json()["result"]["contents"]
    assert (read["uri"], read["text"]) == (uri, f"unlisted at {owner}")


@ERAS
@OWNERS
def test_a_completion_is_asked_of_the_owner_in_its_own_words(served: Gateway, era: str, owner: str) -> None:
    client = _client(served, era, "completing")
    template = f"{owner}://{{name}}/part"
    for params, named in [
        (_complete("ref/prompt", f"{owner}__greet"), "greet"),
        (_complete("ref/resource", template), template),
    ]:
        completed = _ask(client, "completion/complete", params).json()["result"]["completion"]
        assert completed["values"] == [f"{named} x at {owner}"]


OUTSIDE = [
    ("tools/call", {"name": "legacy__stats", "arguments": {}}),
    ("tools/call", {"name": "modern__declared", "arguments": {}}),
    ("prompts/get", {"name": "legacy__greet", "arguments": {"name": "x"}}),
    ("resources/read", {"uri": "legacy://one"}),
    ("resources/read", {"uri": "legacy://a/part"}),
    ("resources/read", {"uri": "legacy://unlisted"}),
    ("completion/complete", _complete("ref/prompt", "legacy__greet")),
    ("completion/complete", _complete("ref/resource", "legacy://{name}/part")),
]


@pytest.mark.parametrize(
    ("era", "method", "params"),
    [
        *(("modern", *it) for it in OUTSIDE),
        *(("legacy", *it) for it in OUTSIDE),
        ("legacy", "resources/subscribe", {"uri": "legacy://one"}),
    ],
)
def test_a_toolset_leads_to_nothing_outside_of_it(
    served: Gateway, era: str, method: str, params: dict[str, Any]
) -> None:
    everywhere = _client(served, era, "wide")
    _ask(everywhere, "tools/call", {"name": "legacy__link", "arguments": {"uri": "legacy://unlisted"}})
    reply = _ask(everywhere, method, params)
    assert "result" in reply.json(), reply.text
    refused = _ask(_client(served, era, "wide", "/some"), method, params)
    assert refused.json()["error"]["code"] in {-32602, -32002}
    (record,) = until(lambda: [it for it in served.records() if it["request_id"] == refused.headers["x-request-id"]])
    assert (record["dispatched"], record["toolset"]) == (False, "some")


@ERAS
def test_a_toolset_lists_nothing_outside_of_it(served: Gateway, era: str) -> None:
    client = _client(served, era, "wide", "/some")

    def listed(method: str, member: str, key: str) -> set[str]:
        return {entry[key] for entry in _ask(client, method, {}).json()["result"][member]}

    assert listed("tools/list", "tools", "name") == {
        f"modern__{name}" for name in ("link", "stats", "sample", "slow_ask")
    }
    assert listed("prompts/list", "prompts", "name") == {"modern__greet"}
    assert listed("resources/list", "resources", "uri") == {"modern://one"}
    assert listed("resources/templates/list", "resourceTemplates", "uriTemplate") == {"modern://{name}/part"}


def test_through_a_toolset_nobody_listens_outside_of_it(served: Gateway) -> None:
    client = _client(served, "modern", "wide", "/some")
    wanted = {"resourceSubscriptions": ["legacy://one", "modern://one"]}
    params = {"notifications": wanted, "_meta": ENVELOPE}
    body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
    routing = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "subscriptions/listen"}
    with opened(client, body, **routing) as stream:
        acknowledged = stream.until(b"modern://one")
    assert b"acknowledged" in acknowledged
    assert b"legacy://one" not in acknowledged
