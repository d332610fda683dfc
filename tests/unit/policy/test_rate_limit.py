import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.errors import RateLimited
from gateway.models import Call, ClientRequest, Entry, Limit, LimitKey, LimitState, Principal, ToolPolicy
from gateway.policy.rate_limit import RateLimit, key_of
from gateway.ports import Take, Verdict

EVERYONE = Limit(name="everyone", per=("principal",), limit=600, window=60.0, burst=60)
REQUEST = ClientRequest("1", "tools/call", {}, {}, {}, "modern", "2026-07-28", {})


class FakeStore:
    def __init__(self, refuse: Limit | None = None, retry_after: float = 0.0) -> None:
        self.asked: list[Sequence[Take]] = []
        self._refuse, self._retry_after = refuse, retry_after
        self.release: Callable[[], None] | None = None

    async def take(self, takes: Sequence[Take]) -> Verdict:
        self.asked.append(takes)
        states = tuple(LimitState(take.limit, 0, 0.0) for take in takes)
        return Verdict(self._refuse, self._retry_after, lambda: states, release=self.release)


class FakeMeter:
    def __init__(self) -> None:
        self.seen: list[tuple[Sequence[Take], Verdict]] = []

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None:
        self.seen.append((takes, verdict))

    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None: ...

    def backend(self, route: str, seconds: float) -> None: ...


def a_call(
    *limits: Limit,
    principal: Principal | None = None,
    name: str = "deploy__rollback",
    backend_name: str = "rollback",
    route: str = "deploy",
    toolset: str | None = None,
) -> Call:
    policy = ToolPolicy(scopes=frozenset(), rule="routes.deploy.scopes", limits=limits)
    tool = Entry(name, backend_name, route, {}, b"{}", b"{}", policy)
    return Call(principal or Principal("https://idp", "ada", "cli"), tool, REQUEST, {}, toolset)


def check(store: FakeStore, call: Call, meter: FakeMeter | None = None) -> None:
    asyncio.run(_run(RateLimit(store, meter or FakeMeter()), call))


async def _run(step: RateLimit, call: Call) -> None:
    await step(call)


def limit_per(*per: LimitKey, name: str = "x") -> Limit:
    return Limit(name=name, per=per, limit=1, window=1.0, burst=1)


def test_a_tool_without_limits_asks_nobody() -> None:
    store = FakeStore()
    check(store, a_call())
    assert store.asked == []


def test_all_limits_of_a_call_are_asked_in_one_step_and_in_their_order() -> None:
    store = FakeStore()
    tight = limit_per("tool", name="tight")
    check(store, a_call(EVERYONE, tight))
    assert [[take.limit for take in takes] for takes in store.asked] == [[EVERYONE, tight]]


def test_a_refusal_says_which_limit_what_it_allows_and_how_many_seconds_to_wait() -> None:
    with pytest.raises(RateLimited) as refusal:
        check(FakeStore(EVERYONE, 1.2333), a_call(EVERYONE))
    assert refusal.value.message == (
        "Rate limit everyone (600 per 60s) is used up; wait 1.234 seconds before calling deploy__rollback again."
    )
    assert refusal.value.limit_name == "everyone"
    assert refusal.value.rule == "everyone"
    assert refusal.value.retryable


@pytest.mark.parametrize(
    ("exact", "said"), [(2.0, 2.0), (0.000001, 0.001), (1.234, 1.234), (1.2340001, 1.234), (1.234001, 1.235)]
)
def test_the_wait_is_rounded_up_to_whole_milliseconds(exact: float, said: float) -> None:
    with pytest.raises(RateLimited) as refusal:
        check(FakeStore(EVERYONE, exact), a_call(EVERYONE))
    assert refusal.value.retry_after == said


def test_a_window_of_less_than_a_second_is_said_as_it_is() -> None:
    with pytest.raises(RateLimited, match=r"\(1 per 0\.25s\)"):
        check(FakeStore(Limit("q", ("global",), 1, 0.25, 1), 0.1), a_call(Limit("q", ("global",), 1, 0.25, 1)))


def test_a_limit_of_places_says_so_and_waits_a_guess() -> None:
    places = Limit("places", ("principal",), 5, 0.0, 5, concurrent=True)
    with pytest.raises(RateLimited, match=r"Rate limit places \(5 at once\) is used up; wait 1\.0 seconds") as refusal:
        check(FakeStore(places, 1.0), a_call(places))
    assert "when one of yours has" in refusal.value.hint


def test_a_call_knows_its_limits_after_the_decision_and_what_it_holds() -> None:
    store = FakeStore()
    given_back: list[str] = []
    store.release = lambda: given_back.append("once")
    call = a_call(EVERYONE)
    check(store, call)
    assert [state.limit for state in call.grant.left()] == [EVERYONE]
    call.grant.end()
    call.grant.end()
    assert given_back == ["once"]


def test_a_rate_and_places_of_one_name_do_not_share_a_counter() -> None:
    places = Limit("x", ("principal",), 5, 0.0, 5, concurrent=True)
    assert key_of(places, a_call()) != key_of(limit_per("principal"), a_call())


KINDS: tuple[LimitKey, ...] = ("principal", "client", "tool", "route", "toolset", "global")


@pytest.mark.parametrize("number", range(1, 2 ** len(KINDS)))
def test_every_combination_of_per_counts_apart_exactly_what_differs_in_it(number: int) -> None:
    per = tuple(kind for at, kind in enumerate(KINDS) if number >> at & 1)
    others: dict[LimitKey, dict[str, Any]] = {
        "principal": {"principal": Principal("https://idp", "bob", "cli")},
        "client": {"principal": Principal("https://idp", "ada", "web")},
        "tool": {"backend_name": "other"},
        "toolset": {"toolset": "oncall"},
    }
    limit = limit_per(*per)
    for kind, other in others.items():
        assert (key_of(limit, a_call()) != key_of(limit, a_call(**other))) == (kind in per)
    apart = key_of(limit, a_call()) != key_of(limit, a_call(route="other"))
    assert apart == ("route" in per or "tool" in per)


@pytest.mark.parametrize("refused", [None, EVERYONE])
def test_the_meter_sees_every_verdict(refused: Limit | None) -> None:
    meter = FakeMeter()
    try:
        check(FakeStore(refused, 1.0), a_call(EVERYONE), meter)
    except RateLimited:
        assert refused is not None
    assert [(len(takes), verdict.refused) for takes, verdict in meter.seen] == [(1, refused)]


@pytest.mark.parametrize(
    ("per", "other"),
    [
        ("principal", {"principal": Principal("https://idp", "bob", "cli")}),
        ("principal", {"principal": Principal("https://other", "ada", "cli")}),
        ("client", {"principal": Principal("https://idp", "ada", "web")}),
        ("client", {"principal": Principal("https://other", "ada", "cli")}),
        ("tool", {"backend_name": "other"}),
        ("tool", {"route": "other"}),
        ("route", {"route": "other"}),
        ("toolset", {"toolset": "oncall"}),
    ],
)
def test_a_limit_counts_apart_what_its_per_names(per: LimitKey, other: dict[str, Any]) -> None:
    limit = limit_per(per)
    assert key_of(limit, a_call(limit)) != key_of(limit, a_call(limit, **other))
    everything = limit_per("global")
    assert key_of(everything, a_call(limit)) == key_of(everything, a_call(limit, **other))


def test_a_limit_per_principal_is_shared_by_clients_and_tools() -> None:
    limit = limit_per("principal")
    other = a_call(limit, principal=Principal("https://idp", "ada", "web"), backend_name="other", toolset="oncall")
    assert key_of(limit, a_call(limit)) == key_of(limit, other)


def test_the_order_of_per_does_not_matter() -> None:
    call = a_call()
    assert key_of(limit_per("tool", "principal"), call) == key_of(limit_per("principal", "tool"), call)


def test_a_tool_has_one_counter_under_all_its_public_names() -> None:
    limit = limit_per("tool")
    plain = a_call(limit, name="rollback", toolset="raw")
    assert key_of(limit, plain) == key_of(limit, a_call(limit))


def test_two_limits_of_different_names_never_share_a_counter() -> None:
    assert key_of(limit_per("principal", name="a"), a_call()) != key_of(limit_per("principal", name="b"), a_call())


def test_names_cannot_be_chosen_to_meet_in_one_counter() -> None:
    limit = limit_per("principal")
    keys = {
        key_of(limit, a_call(principal=Principal(issuer, subject)))
        for issuer, subject in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("a\0b", "c"), ("a", "b\0c")]
    }
    assert len(keys) == 6


def test_a_subject_that_is_not_valid_unicode_still_counts() -> None:
    assert len(key_of(limit_per("principal"), a_call(principal=Principal("i", "\ud800")))) == 32


def test_the_keys_of_a_caller_are_made_once_and_anew_when_the_limits_change() -> None:
    store = FakeStore()
    step = RateLimit(store, FakeMeter())
    call, changed = a_call(EVERYONE), a_call(limit_per("tool"))
    for one in (call, call, changed):
        asyncio.run(_run(step, one))
    first, second, third = store.asked
    assert first is second
    assert [take.limit for take in third] == [limit_per("tool")]
