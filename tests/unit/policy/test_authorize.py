"""The one predicate for lists and calls."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.errors import InsufficientScope, UnknownTool
from gateway.models import Call, ClientRequest, Entry, Principal, ToolPolicy
from gateway.policy.authorize import authorize, permits


def tool(scopes: set[str] | None, *, hidden: bool = False) -> Entry:
    policy = ToolPolicy(
        scopes=None if scopes is None else frozenset(scopes), rule="routes.deploy.tools.rollback.scopes", hidden=hidden
    )
    return Entry("deploy__rollback", "rollback", "deploy", {}, b"{}", b"{}", policy)


def principal(*scopes: str) -> Principal:
    return Principal("https://idp.example.com", "ada", scopes=frozenset(scopes))


def call(who: Principal, what: Entry) -> Call:
    request = ClientRequest(1, "tools/call", {}, {}, {}, "modern", "2026-07-28", {})
    return Call(who, what, request, {})


@pytest.mark.parametrize(
    ("needed", "held", "allowed"),
    [
        ({"deploy:write"}, {"deploy:write"}, True),
        ({"deploy:write"}, {"deploy:write", "other"}, True),
        ({"deploy:write"}, {"deploy:read"}, False),
        ({"deploy:write"}, {"deploy:write "}, False),
        ({"deploy:write"}, {"Deploy:Write"}, False),
        ({"deploy:write"}, set(), False),
        ({"a", "b"}, {"a"}, False),
        ({"a", "b"}, {"a", "b"}, True),
        (set(), set(), True),
        (None, {"deploy:write"}, False),
    ],
)
def test_a_tool_needs_a_rule_and_every_scope_of_it(needed: set[str] | None, held: set[str], allowed: bool) -> None:
    assert permits(principal(*held), tool(needed)) is allowed


@pytest.mark.parametrize("scopes", [set(), {"a"}])
def test_a_hidden_tool_is_nobodys(scopes: set[str]) -> None:
    assert not permits(principal("a"), tool(scopes, hidden=True))


@pytest.mark.parametrize(("needed", "hidden"), list(product([None, set(), {"a"}, {"a", "b"}], [False, True])))
@pytest.mark.parametrize("held", [set(), {"a"}, {"a", "b"}])
async def test_a_call_is_allowed_exactly_where_the_tool_is_listed(
    needed: set[str] | None, hidden: bool, held: set[str]
) -> None:
    who, what = principal(*held), tool(needed, hidden=hidden)
    if permits(who, what):
        authorize(call(who, what))
    else:
        with pytest.raises((InsufficientScope, UnknownTool)):
            authorize(call(who, what))


async def test_the_refusal_names_all_scopes_needed_and_those_that_lack() -> None:
    with pytest.raises(InsufficientScope) as caught:
        authorize(call(principal("deploy:read"), tool({"deploy:write", "deploy:read"})))
    refusal = caught.value
    assert refusal.message == ("This call needs the scopes deploy:read, deploy:write; the token lacks deploy:write.")
    assert refusal.needed == {"deploy:read", "deploy:write"}
    assert refusal.data["scopes_missing"] == ["deploy:write"]
    assert refusal.rule == "routes.deploy.tools.rollback.scopes"
    assert refusal.status == 403


@pytest.mark.parametrize("what", [tool(None), tool(set(), hidden=True)], ids=["without a rule", "hidden"])
async def test_a_tool_that_is_not_offered_is_unknown_here_too(what: Entry) -> None:
    with pytest.raises(UnknownTool):
        authorize(call(principal("deploy:write"), what))
