"""How limits are told to programs and to agents."""

import pytest

from gateway.models import Limit, LimitState, ToolPolicy
from gateway.protocol.limits import described, headers_of, left_of, tightest

RATE = Limit("limits.everyone", ("principal",), 600, 60.0, 60)
DEAR = Limit("limits.dear", ("tool", "principal"), 100, 60.0, 100, cost=10)
PLACES = Limit("limits.places", ("principal",), 5, 0.0, 5, concurrent=True)
TRIAL = Limit("limits.trial", ("principal",), 1, 60.0, 1, enforce=False)


def test_a_rate_has_its_quota_its_window_and_what_is_left() -> None:
    assert headers_of(RATE, 42, 1.2) == (
        ("ratelimit-policy", '"limits.everyone";q=600;w=60'),
        ("ratelimit", '"limits.everyone";r=42;t=2'),
    )


def test_a_limit_of_places_has_their_unit_and_no_window() -> None:
    assert headers_of(PLACES, 2, None) == (
        ("ratelimit-policy", '"limits.places";q=5;qu="concurrent-requests"'),
        ("ratelimit", '"limits.places";r=2'),
    )


def test_what_ends_a_string_in_a_limits_name_is_escaped() -> None:
    limit = Limit('resources.x"\\y.limits[0]', ("principal",), 5, 60.0, 5)
    assert headers_of(limit, 0, 1)[1] == ("ratelimit", '"resources.x\\"\\\\y.limits[0]";r=0;t=1')


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ([LimitState(RATE, 30, 1.0), LimitState(DEAR, 39, 1.0)], "limits.dear"),
        ([LimitState(RATE, 3, 1.0), LimitState(DEAR, 39, 9.0)], "limits.dear"),
        ([LimitState(RATE, 2, 1.0), LimitState(DEAR, 39, 9.0)], "limits.everyone"),
        ([LimitState(PLACES, 0, 0.0), LimitState(TRIAL, 0, 60.0), LimitState(RATE, 59, 0.1)], "limits.everyone"),
    ],
)
def test_the_tightest_limit_is_the_rate_that_leaves_the_fewest_calls(states: list[LimitState], found: str) -> None:
    state = tightest(states)
    assert state is not None
    assert state.limit.name == found


@pytest.mark.parametrize("states", [[], [LimitState(PLACES, 1, 0.0)], [LimitState(TRIAL, 1, 0.0)]])
def test_where_no_rate_holds_nothing_is_told(states: list[LimitState]) -> None:
    assert tightest(states) is None


def test_what_is_left_is_in_the_units_of_the_limit_beside_what_a_call_costs() -> None:
    assert left_of(LimitState(DEAR, 39, 36.60001)) == {
        "limit": "limits.dear",
        "quota": 100,
        "window_seconds": 60.0,
        "remaining": 39,
        "cost": 10,
        "reset_seconds": 36.601,
    }


def test_a_description_ends_with_scopes_and_limits() -> None:
    policy = ToolPolicy(frozenset({"b:write", "a:read"}), "rule", (RATE, DEAR, PLACES, TRIAL))
    assert described({"name": "x", "description": "Rolls back."}, policy) == {
        "name": "x",
        "description": "Rolls back.\nNeeds the scopes a:read and b:write.\n"
        "Limited to 600 per 60s for each principal, 60 of them at once; "
        "100 per 60s for each tool and principal, a call counting as 10; 5 at once for each principal.",
    }


def test_a_tool_without_a_description_gets_one_and_one_without_rules_stays_as_it_is() -> None:
    everybody = Limit("x", ("global",), 5, 1.5, 5)
    policy = ToolPolicy(frozenset({"a"}), "rule", (everybody,))
    assert described({"name": "x"}, policy)["description"] == (
        "Needs the scope a.\nLimited to 5 per 1.5s for all together."
    )
    free = ToolPolicy(frozenset(), "rule", (TRIAL,))
    assert described({"name": "x"}, free) == {"name": "x"}
    assert described({"name": "x", "description": "As it is."}, free)["description"] == "As it is."
