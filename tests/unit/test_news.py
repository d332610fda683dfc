"""A change of the catalogue is told once, and what of pins changed is on record."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway import catalog
from gateway.audit import AuditEvent
from gateway.definitions.lock import NO_LOCK, Lock, pin
from gateway.models import Listing
from gateway.news import News

from .fakes import AUTH, Clock, listing, routes, tool

ONE = "routes:\n  - {name: one, backend: {url: 'http://x.example/mcp'}, scopes: [], pins: %s}\n"


class Told:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.news = News(self.events.append, Clock())

    def hears(self, *tools: Any, lock: Lock = NO_LOCK, pins: str = "block") -> list[AuditEvent]:
        """What is recorded when these tools are listed."""
        offered: dict[str, Listing] = {"one": listing("one", *tools)}
        self.events.clear()
        self.news.tell(catalog.build(routes(AUTH + ONE % pins), offered, lock))
        return list(self.events)


def locked(*tools: Any) -> Lock:
    return Lock({"one": {"tool": {one["name"]: pin(one) for one in tools}}})


def test_a_drift_is_recorded_once_and_so_is_its_end() -> None:
    told, good, bad = Told(), tool("a"), tool("a", description="Else.")
    lock = locked(good)
    assert told.hears(good, lock=lock) == []
    (event,) = told.hears(bad, lock=lock)
    assert (event.kind, event.outcome, event.rule) == ("tools_changed", "quarantined", "tools.lock:one/a")
    assert (event.tool, event.route, event.backend_tool) == ("one__a", "one", "a")
    assert event.arguments is not None
    assert (event.arguments["change"], event.arguments["fields"]) == ("changed", ["description"])
    assert told.hears(bad, lock=lock) == []
    (event,) = told.hears(tool("a", description="Worse."), lock=lock)
    assert event.outcome == "quarantined"
    (event,) = told.hears(good, lock=lock)
    assert (event.outcome, event.arguments and event.arguments["change"]) == ("ok", "as_pinned")
    assert told.hears(good, lock=lock) == []


def test_a_warning_is_recorded_as_what_it_is() -> None:
    (event,) = Told().hears(tool("a"), pins="warn")
    assert (event.outcome, event.arguments and event.arguments["change"]) == ("ok", "new")


def test_without_pins_nothing_is_recorded() -> None:
    assert Told().hears(tool("a"), pins="off") == []


def test_a_quarantined_tool_that_is_gone_was_not_approved() -> None:
    told = Told()
    assert len(told.hears(tool("a"))) == 1
    assert told.hears(tool("b"), lock=locked(tool("b"))) == []


def test_the_log_says_each_thing_once(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            told.hears(tool("a b"), tool("c", description="x\u200b"), tool("d"), pins="block", lock=locked())
    said = [record.message for record in caplog.records]
    assert sorted(said) == ["cleaned", "left out", "tool is quarantined", "tool is quarantined"]
