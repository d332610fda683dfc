from __future__ import annotations

from pathlib import Path

import pytest

from gateway.routes import load
from gateway.routes.places import Places

ROOT = Path(__file__).parents[3]

TEXT = """\
limits:
  - {name: everyone, per: principal, limit: 600, window: 60s}
  - {per: global, limit: 9, window: 1s}
routes:
  - name: deploy
    backend: {url: "http://a/mcp"}
    scopes: [deploy:read]
    limits:
      - {per: tool, limit: 1, window: 1s}
    tools:
      rollback: {scopes: [deploy:write]}
      a.b:
        scopes: []
        limits: [{name: few, per: principal, limit: 1, window: 1s}]
      a:
        b.scopes: {}
      "debug_*":
        hidden: true
  - name: logs
    backend: {url: "http://b/mcp"}
"""


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("limits.everyone", 2),
        ("limits[1]", 3),
        ("routes.deploy", 5),
        ("routes.deploy.scopes", 7),
        ("routes.deploy.limits[0]", 9),
        ("routes.deploy.tools.rollback.scopes", 11),
        ("routes.deploy.tools.a.b.scopes", 13),
        ("routes.deploy.tools.a.b.limits.few", 14),
        ("routes.deploy.tools.debug_*.hidden", 18),
        ("routes.logs", 19),
        ("routes.logs.scopes", None),
        ("routes.gone.scopes", None),
        ("routes.deployment", None),
        ("auth.expired", None),
        ("", None),
    ],
)
def test_a_rule_is_found_at_its_line(rule: str, line: int | None) -> None:
    assert Places(TEXT).line_of(rule) == line


def test_every_rule_of_the_delivered_routes_is_found() -> None:
    path = ROOT / "config/routes.yaml"
    places, lines = Places.of(path), path.read_text().splitlines()
    for route in load(path, {}).routes:
        for name in ("get_deploy_status", "rollback", "git_commit", "anything"):
            policy = route.policy_for(name)
            line = places.line_of(policy.rule)
            assert line is not None
            assert "scopes:" in lines[line - 1]
            assert all(places.line_of(limit.name) for limit in policy.limits)
