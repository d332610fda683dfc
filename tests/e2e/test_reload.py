"""Rules change while the gateway runs: as a whole or not at all, and under no call that is on its way."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Gateway, running, until
from .servers.raw_http import RawBackend
from .test_backend_faults import STDIO
from .wire import at_once, calling, descendants, environ_of, metric

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [{scope}]
    tools: {{hang: {{hidden: {hidden}}}}}
"""


def _routes(raw: RawBackend, scope: str = "raw", hidden: str = "false") -> str:
    return ROUTES.format(url=raw.url, scope=scope, hidden=hidden)


WHERE = re.compile(r"(?:^|\0)WHERE=(\w+)")


@pytest.fixture(scope="module")
def raw() -> Iterator[RawBackend]:
    backend = RawBackend()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def process(raw: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("reload"), _routes(raw)) as gateway:
        yield gateway


@pytest.fixture
def served(process: Gateway, raw: RawBackend) -> Gateway:
    """The gateway with the routes that every test starts from, and all of them good."""
    raw.state.release.clear()
    raw.state.may_tell.set()
    raw.state.held = 0
    process.write(_routes(raw))
    until(lambda: "raw__hang" in process.client("raw").tools())
    until(lambda: metric(process, "mcp_gateway_config_last_reload_successful") == 1)
    return process


@pytest.mark.parametrize("how", ["file", "SIGHUP"])
def test_a_changed_file_changes_what_is_listed_and_called(served: Gateway, raw: RawBackend, how: str) -> None:
    old, new = served.client("raw"), served.client("new")
    assert "raw__hang" in old.tools()
    served.write(_routes(raw, "new", "true"))
    if how == "SIGHUP":
        assert served.process is not None
        served.process.send_signal(signal.SIGHUP)
    until(lambda: old.tools() == [])
    assert "raw__verbatim" in new.tools()
    assert "raw__hang" not in new.tools()
    assert old.call("raw__verbatim").status_code == 403
    assert new.call("raw__verbatim").status_code == 200
    assert json.loads(new.call("raw__hang").text)["error"]["code"] == -32602
    assert metric(served, "mcp_gateway_config_last_reload_successful") == 1


def test_sighup_reads_a_file_that_no_watcher_saw_change(served: Gateway, raw: RawBackend) -> None:
    assert served.process is not None
    for _ in range(5):
        served.process.send_signal(signal.SIGHUP)
    assert served.client("raw").call("raw__verbatim").status_code == 200
    assert served.process.poll() is None


def test_rules_are_swapped_as_a_whole(served: Gateway, raw: RawBackend) -> None:
    """Two rules change together; nobody ever sees one of them without the other."""
    both = """
routes:
  - {{name: one, backend: {{url: "{url}"}}, scopes: [{scope}]}}
  - {{name: two, backend: {{url: "{url}"}}, scopes: [{scope}]}}
"""
    served.write(both.format(url=raw.url, scope="a"))
    clients = {scope: served.client(scope) for scope in "ab"}
    seen: list[set[str]] = []

    def look() -> set[str]:
        tools = clients["a"].tools()
        seen.append({name.partition("__")[0] for name in tools})
        return seen[-1]

    until(lambda: look() == {"one", "two"})
    seen.clear()
    for scope in ("b", "a", "b"):
        served.write(both.format(url=raw.url, scope=scope))
        until(lambda wanted=scope: look() == ({"one", "two"} if wanted == "a" else set()))
    assert all(it in ({"one", "two"}, set()) for it in seen)
    assert len(clients["b"].tools()) > 0


class _ConfigMap(Gateway):
    """A gateway whose file is mounted as Kubernetes does it: links beside a folder that is replaced as a whole."""

    @property
    def config(self) -> Path:
        return self.folder / "mount" / "routes.yaml"

    def write(self, routes: str) -> None:
        plain = Gateway(self.folder, routes, issuer=self.issuer)
        plain.write(routes)
        mount = self.config.parent
        version = mount / f"..{os.urandom(4).hex()}"
        version.mkdir(parents=True)
        plain.config.rename(version / "routes.yaml")
        former = (mount / "..data").resolve() if (mount / "..data").exists() else None
        (mount / "..data_tmp").symlink_to(version.name)
        (mount / "..data_tmp").rename(mount / "..data")
        if former is None:
            self.config.symlink_to("..data/routes.yaml")
        else:
            shutil.rmtree(former)


def test_a_config_map_that_is_swapped_is_noticed_each_time(raw: RawBackend, tmp_path: Path) -> None:
    served = _ConfigMap(tmp_path, _routes(raw)).start()
    try:
        client = served.client("raw")
        for hidden in ("true", "false", "true"):
            served.write(_routes(raw, hidden=hidden))
            until(lambda wanted=hidden: ("raw__hang" in client.tools()) == (wanted == "false"), 4)
    finally:
        served.stop()


BROKEN = """
routes:
  - name: raw
    backend: {url: "ftp://x"}
    scopes: raw
    limits: [{name: a, per: principal, limit: -1, window: 60s}]
    nonsense: 1
"""


def test_a_broken_file_changes_nothing_says_everything_and_heals(served: Gateway, raw: RawBackend) -> None:
    client = served.client("raw")
    before = client.tools()
    reports = served.log.count("not reloaded")
    served.write(BROKEN)
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 0)
    assert client.tools() == before
    assert client.call("raw__verbatim").status_code == 200
    assert served.get("/readyz").status_code == 200
    lines = served.config.read_text().splitlines()
    report = [line for line in served.log.splitlines() if "not reloaded" in line][-1]
    for path, text in {"backend": "ftp", "limits": "limit: -1", "nonsense": "nonsense"}.items():
        number = next(n for n, line in enumerate(lines, 1) if text in line)
        assert f"routes.yaml:{number}" in report, (path, report)
    assert report.count("routes.yaml:") >= 4
    served.write("routes: [")
    until(lambda: served.log.count("not reloaded") > reports + 1)
    assert client.tools() == before
    served.write(_routes(raw, hidden="true"))
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 1)
    until(lambda: "raw__hang" not in client.tools())
    assert served.log.count("not reloaded") == reports + 2  # though the log itself is in the folder that is watched


def test_a_broken_file_that_is_put_back_as_it_was_is_healed_too(served: Gateway, raw: RawBackend) -> None:
    served.write("routes: 5")
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 0)
    served.write(_routes(raw))
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 1)


def test_a_file_that_is_gone_for_a_while_changes_nothing(served: Gateway, raw: RawBackend) -> None:
    served.config.unlink()
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 0)
    assert "raw__verbatim" in served.client("raw").tools()


def test_a_call_on_its_way_through_a_removed_route_still_gets_its_answer(
    served: Gateway, raw: RawBackend, deploy_url: str
) -> None:
    client = served.client("raw deploy")
    with calling(client, "raw__wait") as call:
        until(lambda: raw.state.running == 1)
        served.write(f'\nroutes:\n  - {{name: deploy, backend: {{url: "{deploy_url}"}}, scopes: [deploy]}}\n')
        until(lambda: client.tools() and all(name.startswith("deploy__") for name in client.tools()))
        assert json.loads(client.call("raw__verbatim").text)["error"]["code"] == -32602
        raw.state.release.set()
        assert call.answer()["result"]["content"][0]["text"] == "x"


def test_reloads_under_load_fail_no_call(served: Gateway, raw: RawBackend) -> None:
    client = served.client("raw")

    def calls() -> list[Any]:
        return [client.call("raw__verbatim").status_code for _ in range(40)]

    def reloads() -> list[int]:
        for hidden in ("true", "false", "true"):
            served.write(_routes(raw, hidden=hidden))
            until(lambda wanted=hidden: ("raw__hang" in client.tools()) == (wanted == "false"))
        return []

    results = at_once([calls, calls, reloads])
    assert results[0] + results[1] == [200] * 80


# What a route's backend is


@pytest.fixture
def other() -> Iterator[RawBackend]:
    """Another server, with one tool, of a name that the first has too."""
    backend = RawBackend()
    backend.state.tools = {"verbatim": {"description": "of the other", "inputSchema": {"type": "object"}}}
    yield backend
    backend.stop()


def test_a_route_that_moves_has_nothing_of_its_former_backend_whatever_that_still_says(
    served: Gateway, raw: RawBackend, other: RawBackend
) -> None:
    client, tools = served.client("raw"), raw.state.tools
    other.state.may_tell.clear()

    def lists() -> int:
        return sum(it.method == "tools/list" for it in raw.state.seen)

    asked = lists()
    served.write(_routes(raw).replace("scopes:", "refresh: 1s\n    list_timeout: 30s\n    scopes:"))
    until(lambda: lists() > asked + 1)
    with calling(client, "raw__wait") as call:  # so that the former backend is not closed
        until(lambda: raw.state.running == 1)
        raw.state.may_tell.clear()
        until(lambda: raw.state.held)
        raw.state.tools = {f"late_{number}": tools["verbatim"] for number in range(77)}
        served.write(_routes(other))
        until(lambda: client.tools() == [])
        called = len(raw.state.calls("verbatim"))
        assert json.loads(client.call("raw__verbatim").text)["error"]["code"] == -32602
        raw.state.may_tell.set()
        until(lambda: "raw offers 77 tools" in served.log)
        assert client.tools() == []
        other.state.may_tell.set()
        until(lambda: client.tools() == ["raw__verbatim"])
        assert client.modern("tools/list").json()["result"]["tools"][0]["description"] == "of the other"
        assert client.call("raw__verbatim").status_code == 200
        assert (len(other.state.calls("verbatim")), len(raw.state.calls("verbatim"))) == (1, called)
        raw.state.release.set()
        assert call.answer()["result"]["content"][0]["text"] == "x"
    raw.state.tools = tools


def test_a_changed_deadline_keeps_what_is_listed_and_fails_no_call(served: Gateway, raw: RawBackend) -> None:
    client = served.client("raw")
    before = client.tools()
    raw.state.may_tell.clear()
    served.write(_routes(raw).replace("scopes:", "timeout: 20s\n    scopes:"))
    until(lambda: raw.state.held)  # the deadline is part of new connections
    assert client.tools() == before
    intents = len(_intents(served))
    with calling(client, "raw__verbatim") as call:
        until(lambda: len(_intents(served)) > intents)
        raw.state.may_tell.set()
        assert call.answer()["result"]["content"][0]["text"] == "x"


def _intents(served: Gateway) -> list[dict[str, Any]]:
    return [record for record in served.records() if record["event"] == "intent"]


def test_a_change_of_nothing_but_its_environment_starts_a_program_anew(served: Gateway) -> None:
    def told() -> set[str]:
        """What the programs below the gateway find in ``WHERE``."""
        assert served.process is not None
        return {found[1] for pid in descendants(served.process.pid) if (found := WHERE.search(environ_of(pid)))}

    for where in ("here", "there"):
        backend = f'{{command: ["{sys.executable}", "{STDIO}"], env: {{WHERE: {where}}}}}'
        served.write(f"\nroutes:\n  - {{name: raw, backend: {backend}, scopes: [raw]}}\n")
        until(lambda wanted=where: told() == {wanted})
