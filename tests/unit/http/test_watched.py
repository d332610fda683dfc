"""The books of watched resources."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded, RateLimited
from gateway.http import watched
from gateway.http.watched import Watched, covers
from gateway.models import Principal


class Books:
    def __init__(self, *, own_shares: bool = False) -> None:
        self.wanted: dict[str, frozenset[str]] = {}
        self.told = 0
        self.of: Watched[str] = Watched(self.hear, lambda name: Principal("https://idp" if own_shares else "", name))

    def hear(self, route: str, uris: frozenset[str]) -> None:
        assert self.wanted.get(route, frozenset()) != uris, "told without a change"
        self.wanted[route] = uris
        self.told += 1


def test_the_union_is_told_when_it_changes_and_only_then() -> None:
    books = Books()
    books.of.add("alice", {"a:1": "r", "a:2": "r", "b:1": "s"})
    assert books.wanted == {"r": {"a:1", "a:2"}, "s": {"b:1"}}
    assert books.told == 2
    books.of.add("bob", {"a:1": "r"})
    books.of.remove("alice", ["a:1"])
    assert books.told == 2
    books.of.remove("bob")
    assert books.wanted["r"] == {"a:2"}
    books.of.remove("alice")
    assert books.wanted == {"r": frozenset(), "s": frozenset()}


def test_a_resource_that_moves_is_wanted_of_its_new_owner_and_one_without_an_owner_comes_back() -> None:
    books = Books()
    books.of.add("alice", {"a:1": "r"})
    books.of.move("alice", lambda _uri: "s")
    assert books.wanted == {"r": frozenset(), "s": {"a:1"}}
    books.of.move("alice", lambda _uri: None)
    assert books.wanted == {"r": frozenset(), "s": frozenset()}
    books.of.move("alice", lambda _uri: "r")
    assert books.wanted["r"] == {"a:1"}


def test_too_much_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "MAX_WATCHED", 2)
    books = Books()
    books.of.add("alice", {"a:1": "r"})
    with pytest.raises(Overloaded):
        books.of.add("bob", {"a:2": "r", "a:3": "r"})
    assert books.wanted == {"r": {"a:1"}}
    books.of.remove("alice")
    books.of.add("bob", {"a:2": "r", "a:3": "r"})


def test_one_who_watches_its_share_is_refused_and_leaves_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "MAX_WATCHED", 8)
    books = Books(own_shares=True)
    books.of.add("alice", {"a:1": "r"})
    with pytest.raises(RateLimited):
        books.of.add("alice", {"a:2": "r", "a:3": "r"})
    assert books.wanted == {"r": {"a:1"}}
    books.of.add("bob", {"a:2": "r", "a:3": "r"})
    books.of.move("bob", lambda _uri: "s")
    books.of.remove("alice")
    books.of.add("alice", {"a:2": "r", "a:3": "r"})


@pytest.mark.parametrize(
    ("subscribed", "uri", "does"),
    [
        ("a:1", "a:1", True),
        ("a:1", "a:12", False),
        ("a:1", "a:1/x", True),
        ("a:1", "a:1?x", True),
        ("a:1", "a:1#x", True),
        ("a://h/", "a://h/x", True),
        ("a:1/x", "a:1", False),
    ],
)
def test_a_subscription_covers_what_lies_below_it(subscribed: str, uri: str, does: bool) -> None:
    assert covers(subscribed, uri) == does


def test_what_shows_no_parent_concerns_who_may_read_it() -> None:
    books = Books()
    books.of.add("alice", {"a:1": "r"})
    books.of.add("bob", {"a:1": "r"})
    books.of.add("carol", {"b:1": "s"})
    assert books.of.concerned("r", "part-7", lambda who: who == "bob") == ["bob"]
    assert set(books.of.concerned("r", "a:1/x", lambda _who: False)) == {"alice", "bob"}
    assert books.of.concerned("t", "a:1", lambda _who: True) == []


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "remove", "move"]), st.integers(0, 4), st.integers(0, 1))
)


@given(STEPS)
def test_the_union_is_that_of_all_watchers_whatever_they_did(steps: list[tuple[str, str, int, int]]) -> None:
    books = Books()
    for who, what, number, route in steps:
        uri = f"x:{number}"
        if what == "add" and uri not in books.of.owners(who):
            books.of.add(who, {uri: f"r{route}"})
        elif what == "remove":
            books.of.remove(who, [uri])
        else:
            books.of.move(who, lambda _uri, to=route: f"r{to}")  # type: ignore[misc]
    union: Counter[tuple[str, str]] = Counter()
    for who in "abc":
        union.update((route, uri) for uri, route in books.of.owners(who).items())
    assert {(route, uri) for route, uris in books.wanted.items() for uri in uris} == set(union)
    for who in "abc":
        books.of.remove(who)
    assert all(not uris for uris in books.wanted.values())
    books.of.add("a", {f"y:{n}": "r0" for n in range(10)})  # nothing leaks from the count
