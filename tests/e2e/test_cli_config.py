"""``mcp-gateway check --online``: what of each backend is exposed, of every kind, and what of it is not."""

import json
import re
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import app

from .servers.raw_http import RawBackend
from .telling import Telling

ROUTES = """
defaults: {pins: %s}
routes:
  - name: memos
    backend: {url: "%s"}
    scopes: [memos]
    prompts: {plan: {scopes: [planning]}, raview: {scopes: [planning]}, "draft_*": {hidden: true}}
    tools: {act: {scopes: [acting]}, acct: {scopes: [acting]}}
    resources: {"memo://unlisted": {scopes: [memos]}}
"""


def check(config: Path, *options: str) -> Result:
    done = CliRunner().invoke(app, ["check", str(config), *options], env={"COLUMNS": "40"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def routes(folder: Path, telling: Telling, pins: str = "'off'") -> Path:
    config = folder / "routes.yaml"
    config.write_text(ROUTES % (pins, telling.url))
    return config


def found(done: Result) -> dict[str, Any]:
    online: dict[str, Any] = json.loads(done.stdout)["online"]["memos"]
    return online


def test_every_kind_that_is_listed_is_counted(tmp_path: Path, telling: Telling) -> None:
    config = routes(tmp_path, telling)
    done = check(config, "--online")
    assert done.exit_code == 0
    assert "memos: reached 1 tool(s), 2 prompt(s), 2 resource(s), 2 template(s)" in done.stdout
    told = found(check(config, "--online", "--json"))
    assert {kind: told[kind] for kind in ("tools", "prompts", "resources", "templates")} == {
        "tools": 1,
        "prompts": 2,
        "resources": 2,
        "templates": 2,
    }
    telling.says(plan=None, review=None)
    assert "reached 1 tool(s), 2 resource(s), 2 template(s)" in check(config, "--online").stdout


def test_what_is_cleaned_and_not_as_pinned_is_named_with_its_kind(tmp_path: Path, telling: Telling) -> None:
    config = routes(tmp_path, telling, "{prompts: block, resources: warn}")
    telling.says(act="x\u200b", plan="x\u200b", today="x\u200b", page="x\u200b", review="Other.", note="Other.")
    notes = found(check(config, "--online", "--json"))["notes"]
    removed = "hidden characters removed from description"
    for note in (
        f"act: {removed}",
        f"prompt plan: {removed}",
        f"resource memo://today: {removed}",
        f"template page://{{name}}: {removed}",
        "prompt review: quarantined, it is not in the lock",
        "resource memo://rules: not as pinned, it is not in the lock",
        "template note://{name}: not as pinned, it is not in the lock",
    ):
        assert any(said.startswith(note) for said in notes), (note, notes)
    assert not [said for said in notes if said.startswith("act:") and "lock" in said]


def test_a_rule_whose_name_nothing_has_is_told(tmp_path: Path, telling: Telling) -> None:
    done = check(routes(tmp_path, telling), "--online")
    assert done.exit_code == 0
    assert [line.strip() for line in done.stdout.splitlines() if "is not listed" in line] == [
        "acct: has a rule and is not listed; is the name right?",
        "prompt raview: has a rule and is not listed; is the name right?",
    ]


def test_a_backend_that_is_away_is_said_with_the_reason(tmp_path: Path) -> None:
    config = tmp_path / "routes.yaml"
    config.write_text('routes: [{name: memos, backend: {url: "http://127.0.0.1:9/mcp"}, scopes: []}]')
    done = check(config, "--online")
    assert done.exit_code == 1
    assert "memos: not reached standard error says why" in done.stdout


def test_a_name_that_is_exposed_shortened_is_told(tmp_path: Path, raw: RawBackend) -> None:
    long = "x" * 70
    raw.state.tools = {long: {"inputSchema": {"type": "object"}}, "short": {"inputSchema": {"type": "object"}}}
    config = tmp_path / "routes.yaml"
    config.write_text(f'routes: [{{name: memos, backend: {{url: "{raw.url}"}}, scopes: []}}]')
    (note,) = found(check(config, "--online", "--json"))["notes"]
    exposed = re.fullmatch(rf"{long}: exposed as (memos__\S+), shortened to 64 characters", note)
    assert exposed is not None
    assert len(exposed[1]) == 64
