"""Limits of both kinds as the file writes them, and what tools cost; mistakes are in ``test_routes_loader.py``."""

import pytest

from gateway.models import Limit
from gateway.routes import parse
from gateway.routes.limits import LimitRule, short_name

COSTS = """
limits:
  - {name: everyone, per: principal, limit: 60, window: 60s, cost: 2}
  - {per: global, limit: 100, window: 1s}
  - {name: slots, per: principal, concurrency: 5}
  - {name: trial, per: principal, limit: 9, window: 1s, enforce: false}
routes:
  - name: deploy
    backend: {url: "http://deploy:9000/mcp"}
    tools:
      all: {cost: 5}
      some: {cost: {everyone: 7, "*": 3}}
      one: {cost: {everyone: 7}}
"""


@pytest.mark.parametrize(
    ("tool", "costs"),
    [("other", [2, 1, 1, 1]), ("all", [5, 5, 1, 5]), ("some", [7, 3, 1, 3]), ("one", [7, 1, 1, 1])],
)
def test_what_a_call_costs_is_said_by_the_tool_for_one_limit_or_all_else_by_the_limit(
    tool: str, costs: list[int]
) -> None:
    limits = parse(COSTS, source="x", environ={}).routes[0].policy_for(tool).limits
    assert [limit.cost for limit in limits] == costs
    assert [(limit.concurrent, limit.enforce) for limit in limits] == [
        (False, True),
        (False, True),
        (True, True),
        (False, False),
    ]


def test_a_limit_of_places_has_no_rate() -> None:
    rule = LimitRule.model_validate({"per": "principal", "concurrency": 5})
    assert rule.to_limit("limits[0]") == Limit("limits[0]", ("principal",), 5, 0.0, 5, concurrent=True)


def test_the_burst_of_a_rate_is_its_limit_unless_said() -> None:
    rule = LimitRule.model_validate({"per": "principal", "limit": 5, "window": "2s"})
    assert rule.to_limit("x") == Limit("x", ("principal",), 5, 2.0, 5)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("limits.everyone", "everyone"),
        ("routes.a.tools.limits.x.limits.few", "few"),
        ("limits[0]", "limits[0]"),
        ("routes.a.tools.limits.x.limits[0]", "x.limits[0]"),
    ],
)
def test_the_short_name_of_a_limit_is_its_own_or_none_that_can_be_written(name: str, short: str) -> None:
    assert short_name(Limit(name, ("global",), 1, 1.0, 1)) == short
