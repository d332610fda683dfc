from __future__ import annotations

from pathlib import Path

from gateway.routes import load, markdown
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_configuration_reference_is_the_one_that_the_models_give() -> None:
    written = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert written == markdown(Settings) + "\n", "run: mcp-gateway schema --markdown > docs/configuration.md"


def test_the_delivered_routes_load_with_an_empty_environment() -> None:
    routes = load(ROOT / "config/routes.yaml", {})
    assert [route.name for route in routes.routes] == ["deploy", "time", "git"]
    assert set(routes.toolsets) == {"oncall", "raw-time"}


def test_the_delivered_routes_ask_for_more_where_a_tool_writes() -> None:
    deploy, _time, git = load(ROOT / "config/routes.yaml", {}).routes
    writing = [deploy.policy_for("rollback"), deploy.policy_for("start_deploy"), git.policy_for("git_commit")]
    assert [policy.scopes for policy in writing] == [{"deploy:write"}, {"deploy:write"}, {"git:write"}]
    assert deploy.policy_for("list_deploys").scopes == {"deploy:read"}
    assert git.policy_for("git_log").scopes == {"git:read"}


def test_there_are_less_than_thirty_settings() -> None:
    assert len(Settings.model_fields) < 30
