"""``mcp-gateway explain`` beside a running gateway: it says what that gateway does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import app
from gateway.devtokens import DevIssuer

from .harness import ISSUER, RESOURCE, Client, Gateway, until
from .telling import Telling

ROUTES = """
  scope_implies: {deploy:admin: [deploy:read, deploy:write]}
limits:
  - {name: everyone, per: principal, limit: 600, window: 1h, burst: 60}
routes:
  - name: deploy
    backend: {url: "%s"}
    scopes: [deploy:read]
    tools:
      rollback: {scopes: [deploy:write]}
      start_deploy: {hidden: true}
  - name: away
    backend: {url: "http://127.0.0.1:9/mcp"}
    scopes: [away:read]
toolsets:
  oncall: {routes: [deploy], tools: ["deploy__list_*"]}
"""


def explain(gateway: Gateway, *options: str, stdin: str = "", **environ: str) -> Result:
    """The command in this process: it is a reader of files, and starting it anew takes a second."""
    arguments = ["explain", *options, "--config", str(gateway.config)]
    done = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "40", **gateway.environ, **environ})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def as_json(done: Result) -> Any:
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, deploy_url: str, valkey_server: str) -> Any:
    environ = {"GATEWAY_REDIS_URL": valkey_server}
    one = Gateway(tmp_path_factory.mktemp("explained"), ROUTES % deploy_url, environ, DevIssuer.create(ISSUER)).start()
    yield one
    one.stop()


@pytest.mark.parametrize(
    ("scopes", "toolset"), [("deploy:read", None), ("deploy:admin", None), ("", None), ("deploy:read", "oncall")]
)
def test_what_it_allows_is_what_the_gateway_lists(running: Gateway, scopes: str, toolset: str | None) -> None:
    token = running.token(scopes)
    named = ("--toolset", toolset) if toolset else ()
    done = explain(running, "--token", token, "--json", *named)
    allowed = [tool["tool"] for tool in as_json(done)["tools"] if tool["allowed"]]
    assert done.exit_code == 0
    assert allowed == Client(running.url + (f"/{toolset}" if toolset else ""), token).tools()


def test_a_denied_tool_has_its_rule_with_file_and_line_and_the_scopes_that_lack(running: Gateway) -> None:
    token = running.token("deploy:read", subject="line")
    done = explain(running, "deploy__rollback", "--token", token, "--json")
    (tool,) = as_json(done)["tools"]
    assert done.exit_code == 1
    assert tool["rule"] == "routes.deploy.tools.rollback.scopes"
    assert running.config.read_text().splitlines()[tool["line"] - 1].strip() == "rollback: {scopes: [deploy:write]}"
    assert (tool["scopes_needed"], tool["scopes_missing"]) == (["deploy:write"], ["deploy:write"])
    refused = Client(running.url, token).call("deploy__rollback")
    assert refused.status_code == 403
    told = explain(running, "deploy__rollback", "--token", token).stdout
    assert f"{running.config}:{tool['line']} routes.deploy.tools.rollback.scopes" in told
    assert "denied: lacks deploy:write" in told


def test_what_is_left_of_a_limit_is_what_calls_left_and_looking_takes_nothing(running: Gateway) -> None:
    token = running.token("deploy:read", subject="counted")
    for _ in range(3):
        assert Client(running.url, token).call("deploy__list_services").status_code == 200
    for _ in range(2):
        (tool,) = as_json(explain(running, "deploy__list_services", "--token", token, "--json"))["tools"]
        (limit,) = tool["limits"]
        assert tool["principal_concurrency"] == 32
        assert (limit["rule"], limit["remaining"]) == ("limits.everyone", 57)
    told = explain(running, "deploy__list_services", "--token", token).stdout
    assert "600 in 1h, 60 at once, per principal; 57 left" in told


def test_limits_in_the_gateways_process_are_said_not_to_be_visible(running: Gateway) -> None:
    options = ("deploy__list_services", "--token", running.token("deploy:read"))
    told = explain(running, *options, GATEWAY_REDIS_URL="")
    assert "known to the gateway's process alone" in told.stdout
    assert told.exit_code == 0


def test_who_the_token_is_and_which_scopes_are_implied(running: Gateway) -> None:
    token = as_json(explain(running, "--token", running.token("deploy:admin", client_id="ci"), "--json"))["token"]
    assert (token["accepted"], token["issuer"], token["subject"], token["client_id"]) == (True, ISSUER, "alice", "ci")
    assert token["scopes"] == ["deploy:admin", "deploy:read", "deploy:write"]
    assert token["scopes_implied"] == ["deploy:read", "deploy:write"]


def test_a_tool_of_a_backend_that_is_away_is_judged_by_its_name(running: Gateway) -> None:
    done = explain(running, "away__anything", "--token", running.token("away:read"))
    assert "the away backend was not reached" in done.stderr
    assert "away__anything: allowed" in done.stdout


@pytest.mark.parametrize(
    ("claims", "rule", "words"),
    [
        ({"aud": "https://other"}, "auth.wrong_audience", [RESOURCE, "https://other"]),
        ({"iss": "https://evil.test"}, "auth.unknown_issuer", ["https://evil.test", ISSUER]),
        ({"exp": 1}, "auth.expired", ["1970-01-01T00:00:01Z"]),
    ],
)
def test_a_refused_token_says_exactly_why(
    running: Gateway, claims: dict[str, Any], rule: str, words: list[str]
) -> None:
    token = running.token(**claims)
    done = explain(running, "--token", token, "--json")
    told = as_json(done)["token"]
    assert (done.exit_code, told["accepted"], told["refusal"]) == (1, False, rule)
    assert all(word in told["detail"] for word in words)
    assert Client(running.url, token).call("deploy__list_services").status_code == 401
    until(lambda: running.records()[-1:] and running.records()[-1]["rule"] == rule)


def test_a_forged_token_is_refused_and_its_claims_alone_are_not(running: Gateway) -> None:
    stranger = DevIssuer.create(ISSUER).mint("alice", ["deploy:read"], RESOURCE)
    done = explain(running, "--token", stranger)
    assert done.exit_code == 1
    assert "auth.unknown_key" in done.stdout
    offline = explain(running, "--token", stranger, "--offline")
    assert offline.exit_code == 0
    assert "The signature was not checked." in offline.stdout
    assert re.search(r"^deploy__rollback +lacks deploy:write", offline.stdout, re.MULTILINE)


def test_a_token_for_one_toolset_is_refused_elsewhere(running: Gateway) -> None:
    token = running.issuer.mint("alice", ["deploy:read"], f"{RESOURCE}/oncall")
    assert explain(running, "--token", token).exit_code == 1
    assert explain(running, "--token", token, "--toolset", "oncall").exit_code == 0


@pytest.mark.parametrize("token", ["\udcff\udcfe", "t\u00f6ken", "a b", "\x1b[2J", "x" * 20_000])
def test_what_is_no_token_is_refused_like_any_other(running: Gateway, token: str) -> None:
    done = explain(running, "--token", token)
    assert done.exit_code == 1
    assert done.stdout.startswith(("refused: auth.malformed", "refused: auth.too_large"))


def test_a_token_until_the_end_of_time_is_explained(running: Gateway) -> None:
    claims = {"iss": ISSUER, "sub": "ann", "aud": RESOURCE, "exp": 253_402_300_799}
    done = explain(running, "--claims", json.dumps(claims), "--offline")
    assert done.exit_code == 0
    assert "subject  ann" in done.stdout


def test_claims_come_as_json_or_from_a_file_and_tokens_from_standard_input(running: Gateway) -> None:
    claims = {"iss": ISSUER, "sub": "ann", "aud": RESOURCE, "exp": 4_000_000_000, "scope": "deploy:write"}
    file = running.folder / "claims.json"
    file.write_text(json.dumps(claims))
    for given in (json.dumps(claims), str(file)):
        done = explain(running, "deploy__rollback", "--claims", given, "--offline", "--json")
        assert (done.exit_code, as_json(done)["token"]["subject"]) == (0, "ann")
    done = explain(running, "--token", "-", "--offline", stdin=running.token("deploy:read") + "\n")
    assert "subject  alice" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ((), 2, "give --token or --claims"),
        (("--token", "x", "--claims", "{}"), 2, "not both"),
        (("--claims", "{"), 2, "cannot be read"),
        (("--claims", "/not/there"), 2, "cannot be read"),
        (("--token", "x", "--toolset", "nope"), 2, "there are: oncall"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(
    running: Gateway, options: tuple[str, ...], code: int, word: str
) -> None:
    done = explain(running, *options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert word in done.stderr


def test_a_name_that_no_route_has_is_said(running: Gateway) -> None:
    done = explain(running, "nobody__x", "--token", running.token("deploy:read"))
    assert done.exit_code == 1
    assert "public names begin with deploy__, away__" in done.stderr


def test_a_broken_file_is_reported_whole(running: Gateway, tmp_path: Path) -> None:
    broken = Gateway(tmp_path, "")
    broken.config.write_text("routes: [{name: A}]\n")
    done = explain(broken, "--token", "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "routes[0].name" in done.stderr
    assert "routes[0].backend" in done.stderr


# Prompts, resources and templates

MEMOS = """
routes:
  - name: memos
    backend: {url: "%s"}
    scopes: [memos]
    prompts:
      plan: {scopes: [memos, planning]}
    resources:
      "memo://rules": {hidden: true}
      "page://*": {scopes: [pages]}
"""


@pytest.fixture(scope="module")
def memos(tmp_path_factory: pytest.TempPathFactory, told: Telling) -> Any:
    one = Gateway(tmp_path_factory.mktemp("memos"), MEMOS % told.url, issuer=DevIssuer.create(ISSUER)).start()
    yield one
    one.stop()


def lines(done: Result) -> list[str]:
    """Those of the table, its columns apart, without the file."""
    table = done.stdout.partition("\n\n")[2].splitlines()
    return [" | ".join(re.split("  +", re.sub(r" /.*:(\d+) ", r" \1 ", line))) for line in table]


def test_without_asking_backends_the_rules_for_prompts_and_resources_follow_the_tools(memos: Gateway) -> None:
    done = explain(memos, "--token", memos.token("memos"), "--offline")
    first = memos.config.read_text().splitlines().index("  - name: memos") + 1
    assert lines(done) == [
        f"memos__* | allowed | {first + 2} routes.memos.scopes",
        f"prompt memos__plan | lacks planning | {first + 4} routes.memos.prompts.plan.scopes",
        f"prompt memos__* | allowed | {first + 2} routes.memos.scopes",
        f"resource memo://rules | hidden | {first + 6} routes.memos.resources.memo://rules.hidden",
        f"resource page://* | lacks pages | {first + 7} routes.memos.resources.page://*.scopes",
        f"resource * | allowed | {first + 2} routes.memos.scopes",
        "By the rules alone; no backend was asked what it has, and no counter what is left.",
    ]
    told = as_json(explain(memos, "--token", memos.token("memos"), "--offline", "--json"))
    assert [one["prompt"] for one in told["prompts"] if one["allowed"]] == ["memos__*"]
    assert [one["resource"] for one in told["resources"] if not one["allowed"]] == ["memo://rules", "page://*"]


@pytest.mark.parametrize("scopes", ["memos", "memos planning pages", ""])
@pytest.mark.parametrize(
    ("uri", "offline"), [("page://one", True), ("page://one", False), ("memo://rules", True), ("memo://today", False)]
)
def test_a_uri_is_judged_as_reading_it_is(memos: Gateway, uri: str, offline: bool, scopes: str) -> None:
    token = memos.token(scopes)
    done = explain(memos, uri, "--token", token, *(["--offline"] if offline else []), "--json")
    (resource,) = as_json(done)["resources"]
    reply = Client(memos.url, token).modern("resources/read", {"uri": uri}, Mcp_Name=uri)
    assert (resource["resource"], resource["allowed"]) == (uri, "result" in reply.json())
    assert done.exit_code == (0 if resource["allowed"] else 1)


@pytest.mark.parametrize("offline", [(), ("--offline",)])
def test_a_prompt_is_explained_by_its_public_name(memos: Gateway, offline: tuple[str, ...]) -> None:
    done = explain(memos, "memos__plan", "--token", memos.token("memos"), *offline)
    assert done.exit_code == 1
    assert "prompt memos__plan: denied: lacks planning" in done.stdout
    assert explain(memos, "memos__plan", "--token", memos.token("memos planning"), *offline).exit_code == 0


def test_whose_a_uri_is_without_a_rule_only_backends_know(memos: Gateway) -> None:
    done = explain(memos, "memo://today", "--token", memos.token("memos"), "--offline")
    assert done.exit_code == 1
    assert "that no rule names is not known offline" in done.stderr
    away = explain(memos, "other://today", "--token", memos.token("memos"))
    assert away.exit_code == 1
    assert "public names begin with memos__" in away.stderr
    assert "only where a backend lists it" in away.stderr
    assert "URI" not in explain(memos, "nothing", "--token", memos.token("memos")).stderr
