"""A backend of the modern era over HTTP: what it offers, what it answers, and what it says has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from time import monotonic
from typing import Any

from gateway.backends import link
from gateway.backends.listen import Listener
from gateway.backends.modern import ModernHttp, NotModern
from gateway.backends.probe import server_info_of
from gateway.models import BackendReply, BackendRequest, Era, JsonObject
from gateway.ports import Notify

_LISTS = (
    ("tools", "tools/list", "tools", False),
    ("prompts", "prompts/list", "prompts", True),
    ("resources", "resources/list", "resources", True),
    ("resources", "resources/templates/list", "resourceTemplates", True),
)
"""Capability, method, member of the result, and whether the backend may lack the method all the same."""

_LISTENING = 0.25
"""Share of the time for an offer that the first listen stream may take before the lists are asked for."""


class ModernLink:
    """Implements ``link.Link``. The client of ``http`` outlives it; the ``listener`` ends with it."""

    era: Era = "modern"

    def __init__(self, route: str, http: ModernHttp, listener: Listener) -> None:
        self._route = route
        self._http = http
        self._listener = listener
        self._found: JsonObject | None = None

    async def discover(self, seconds: float) -> None:
        """Ask whether the backend is modern.

        Raises:
            NotModern: it is not.
            BackendUnavailable: nothing is known.
        """
        self._found = await self._http.discover(seconds)

    def request(self, request: BackendRequest, notify: Notify) -> Awaitable[BackendReply]:
        """See ``link.Link``."""
        return self._http.request(request, notify)

    async def offer(self, seconds: float) -> link.Offer:
        """See ``link.Link``. It listens before it lists, so that no change falls in between."""
        until = monotonic() + seconds
        found, self._found = self._found, None
        try:
            about = found if found is not None else await self._http.discover(seconds)
        except NotModern:
            raise link.wrong_era(self._route) from None
        capabilities = about.get("capabilities")
        capabilities = capabilities if isinstance(capabilities, dict) else {}
        await self._listener.advertised(capabilities, seconds * _LISTENING)
        tools, prompts, resources, templates = await self._lists(capabilities, max(0.001, until - monotonic()))
        return link.Offer(
            tools=tuple(tools),
            capabilities=capabilities,
            server_info=server_info_of(about),
            prompts=tuple(prompts),
            resources=tuple(resources),
            templates=tuple(templates),
        )

    def watch(self, uris: frozenset[str]) -> None:
        """See ``link.Link``."""
        self._listener.watch(uris)

    async def aclose(self) -> None:
        """See ``link.Link``."""
        await self._listener.aclose()

    async def _lists(self, capabilities: Mapping[str, Any], seconds: float) -> list[list[JsonObject]]:
        async def nothing() -> list[JsonObject]:
            return []

        return await _together(
            [
                self._http.list_all(method, member, seconds, optional=optional)
                if isinstance(capabilities.get(feature), dict)
                else nothing()
                for feature, method, member, optional in _LISTS
            ]
        )


async def _together(work: list[Coroutine[Any, Any, list[JsonObject]]]) -> list[list[JsonObject]]:
    """All results in order; the first failure ends the others."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
