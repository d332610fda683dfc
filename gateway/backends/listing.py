"""All pages of a backend's lists, within bounds."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.backends import link
from gateway.errors import BackendUnavailable
from gateway.models import JsonObject

logger = logging.getLogger(__name__)

MAX_PAGES = 20
MAX_ENTRIES = 2_000
MAX_ENTRY_BYTES = 200_000

Ask = Callable[[str, JsonObject, float], Awaitable[JsonObject]]
Entries = tuple[Mapping[str, Any], ...]

_LISTS = (
    ("tools", "tools", "tools/list", "tools"),
    ("prompts", "prompts", "prompts/list", "prompts"),
    ("resources", "resources", "resources/list", "resources"),
    ("templates", "resources", "resources/templates/list", "resourceTemplates"),
)
"""Member of the offer, the capability that it needs, the method, and the member of its result."""


class NotOffered(BackendUnavailable):
    """What ``Ask`` raises where the backend has no such method (-32601)."""


def not_offered(route: str) -> NotOffered:
    """See ``NotOffered``."""
    return NotOffered(f"The {route} backend does not offer this.", dispatched=False, retryable=False)


async def offer_of(
    route: str,
    capabilities: Mapping[str, Any],
    server_info: Mapping[str, Any] | None,
    ask: Ask,
    seconds: float,
) -> link.Offer:
    """Every list of a backend that said it has ``capabilities``, within ``seconds``.

    Raises:
        BackendUnavailable: not all could be had. A part is never taken for the whole.
    """
    found: dict[str, Entries] = {}
    try:
        async with asyncio.timeout(seconds):
            for member, capability, method, key in _LISTS:
                if capability in capabilities:
                    found[member] = await all_of(route, ask, method, key, seconds)
    except TimeoutError:
        raise link.late(route, seconds) from None
    return link.Offer(capabilities=capabilities, server_info=server_info, **found)


async def all_of(route: str, ask: Ask, method: str, key: str, seconds: float) -> Entries:
    """What ``method`` lists under ``key``, all pages, in ``seconds`` together.

    None where there is no such method, but for tools: that would be a lie about the capability.

    Raises:
        BackendUnavailable: not all could be had.
    """
    try:
        async with asyncio.timeout(seconds):
            found = await _pages(route, ask, method, key, seconds)
    except NotOffered:
        if method == "tools/list":
            raise
        return ()
    except TimeoutError:
        raise link.late(route, seconds) from None
    return _fit(route, method, found)


async def _pages(route: str, ask: Ask, method: str, key: str, seconds: float) -> list[Any]:
    found: list[Any] = []
    cursors: set[str] = set()
    params: JsonObject = {}
    while True:
        page = await ask(method, params, seconds)
        entries, cursor = page.get(key), page.get("nextCursor")
        if not isinstance(entries, list):
            raise link.unusable(route)
        found += entries
        if cursor is None:
            return found
        if not isinstance(cursor, str) or cursor in cursors:
            logger.warning("%s repeats itself in %s", route, method)
            raise link.unusable(route)
        cursors.add(cursor)
        if len(cursors) >= MAX_PAGES or len(found) > MAX_ENTRIES:
            logger.warning("%s has more than %d pages or %d entries in %s", route, MAX_PAGES, MAX_ENTRIES, method)
            raise link.unusable(route)
        params = {"cursor": cursor}


def _fit(route: str, method: str, entries: list[Any]) -> Entries:
    fit = tuple(entry for entry in entries if isinstance(entry, dict) and _size(entry) <= MAX_ENTRY_BYTES)
    if len(fit) < len(entries):
        left_out = len(entries) - len(fit)
        logger.warning("%s: %d entries of %s are malformed or too large and are left out", route, left_out, method)
    return fit


def _size(entry: Mapping[str, Any]) -> int:
    try:
        return len(json.dumps(entry, ensure_ascii=False).encode(errors="replace"))
    except RecursionError:
        return MAX_ENTRY_BYTES + 1
