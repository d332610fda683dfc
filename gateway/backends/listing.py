"""All pages of a backend's ``tools/list``, within bounds."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.backends import link
from gateway.models import JsonObject

logger = logging.getLogger(__name__)

MAX_PAGES = 20
MAX_TOOLS = 2_000
MAX_TOOL_BYTES = 200_000

Ask = Callable[[str, JsonObject, float], Awaitable[JsonObject]]
Tools = tuple[Mapping[str, Any], ...]


async def tools_of(route: str, capabilities: Mapping[str, Any], ask: Ask, seconds: float) -> Tools:
    """The tools of a backend that said it has ``capabilities``; all pages together may take ``seconds``.

    Raises:
        BackendUnavailable: not all could be had. A part is never taken for the whole.
    """
    if "tools" not in capabilities:
        return ()
    try:
        async with asyncio.timeout(seconds):
            found = await _pages(route, ask, seconds)
    except TimeoutError:
        raise link.late(route, seconds) from None
    return _fit(route, found)


async def _pages(route: str, ask: Ask, seconds: float) -> list[Any]:
    found: list[Any] = []
    cursors: set[str] = set()
    params: JsonObject = {}
    while True:
        page = await ask("tools/list", params, seconds)
        tools, cursor = page.get("tools"), page.get("nextCursor")
        if not isinstance(tools, list):
            raise link.unusable(route)
        found += tools
        if cursor is None:
            return found
        if not isinstance(cursor, str) or cursor in cursors:
            logger.warning("%s repeats itself in tools/list", route)
            raise link.unusable(route)
        cursors.add(cursor)
        if len(cursors) >= MAX_PAGES or len(found) > MAX_TOOLS:
            logger.warning("%s has more than %d pages or %d tools", route, MAX_PAGES, MAX_TOOLS)
            raise link.unusable(route)
        params = {"cursor": cursor}


def _fit(route: str, tools: list[Any]) -> Tools:
    fit = tuple(tool for tool in tools if isinstance(tool, dict) and _size(tool) <= MAX_TOOL_BYTES)
    if len(fit) < len(tools):
        logger.warning("%s: %d tools are malformed or too large and are left out", route, len(tools) - len(fit))
    return fit


def _size(tool: Mapping[str, Any]) -> int:
    return len(json.dumps(tool, ensure_ascii=False).encode(errors="replace"))
