"""When the world is told that a backend's lists changed: not before the listing has them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gateway.models import Change, Listing

_List = Literal["tools", "prompts", "resources"]


class Changes:
    """Holds back what a backend said of its lists until they were fetched anew, for who hears of it will ask for them.

    What the backend says is told even where the lists are found to be the same.
    """

    def __init__(self, route: str, on_listing: Callable[[Listing], None], on_change: Callable[[Change], None]) -> None:
        self._route = route
        self._on_listing = on_listing
        self._on_change = on_change
        self._last: Listing | None = None
        self._said: set[_List] = set()
        self._asked: set[_List] = set()

    def heard(self, change: Change) -> bool:
        """The backend said so; True when its lists are to be fetched."""
        if change.kind == "resource":
            self._on_change(change)
            return False
        self._said.add(change.kind)
        return True

    def asking(self) -> None:
        """The lists are about to be fetched: what was said so far will be in them."""
        self._asked |= self._said
        self._said.clear()

    def listed(self, listing: Listing) -> None:
        """There is a listing that differs from the last."""
        self._asked |= _differing(self._last, listing)
        self._last = listing
        self._on_listing(listing)

    def fresh(self) -> None:
        """The lists were fetched, whether they differ or not."""
        told, self._asked = self._asked, set()
        for kind in sorted(told):
            self._on_change(Change(self._route, kind))


def _differing(last: Listing | None, listing: Listing) -> set[_List]:
    before = last or Listing(listing.route, (), 0.0)
    kinds: set[_List] = set()
    if before.tools != listing.tools:
        kinds.add("tools")
    if before.prompts != listing.prompts:
        kinds.add("prompts")
    if (before.resources, before.templates) != (listing.resources, listing.templates):
        kinds.add("resources")
    return kinds
