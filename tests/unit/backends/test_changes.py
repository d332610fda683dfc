"""A change is told when the listing has it, and not before."""

from typing import Any

from gateway.backends.changes import Changes
from gateway.models import Change, Listing


class World:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.changes = Changes("r", self.told.append, self.told.append)

    def fetch(self, listing: Listing | None = None) -> list[Any]:
        self.changes.asking()
        if listing is not None:
            self.changes.listed(listing)
        self.changes.fresh()
        told, self.told[:] = list(self.told), []
        return told


def test_a_list_is_told_after_it_was_fetched_even_if_it_is_the_same() -> None:
    world = World()
    assert world.changes.heard(Change("r", "tools"))
    assert world.told == []
    assert world.fetch() == [Change("r", "tools")]
    assert world.fetch() == []


def test_what_is_said_while_the_lists_are_fetched_waits_for_the_next_time() -> None:
    world = World()
    world.changes.asking()
    world.changes.heard(Change("r", "prompts"))
    world.changes.fresh()
    assert world.told == []
    assert world.fetch() == [Change("r", "prompts")]


def test_a_fetch_that_fails_forgets_nothing() -> None:
    world = World()
    world.changes.heard(Change("r", "tools"))
    world.changes.asking()  # and no listing comes
    assert world.fetch() == [Change("r", "tools")]


def test_lists_that_differ_are_told_after_the_listing_though_nobody_said_so() -> None:
    world = World()
    first = Listing("r", ({"name": "a"},), 1.0)
    assert world.fetch(first) == [first, Change("r", "tools")]
    more = Listing("r", ({"name": "a"},), 2.0, prompts=({"name": "p"},), templates=({"uriTemplate": "x:{y}"},))
    assert world.fetch(more) == [more, Change("r", "prompts"), Change("r", "resources")]


def test_a_changed_resource_is_told_at_once() -> None:
    world = World()
    assert not world.changes.heard(Change("r", "resource", "x:1"))
    assert world.told == [Change("r", "resource", "x:1")]
