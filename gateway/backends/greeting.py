"""The first words of a session: ``server/discover`` or ``initialize``, by the era of the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_types import CONNECTION_CLOSED

from gateway.backends import link, probe, verdict
from gateway.backends.wire import Exchange
from gateway.errors import METHOD_NOT_FOUND, UNSUPPORTED_VERSION
from gateway.models import Era, JsonObject
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, LATEST_LEGACY, MODERN, PROTOCOL_VERSION

Ask = Callable[[str, JsonObject, float], Awaitable[verdict.Answer]]
Notify = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the backend said of itself."""

    era: Era = "legacy"
    revision: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """How to greet: ``era`` None asks first which one it is, and after ``silence`` seconds also says ``initialize``.

    ``revision`` is what a legacy backend is asked for, ``capabilities`` what it is told that the client can do;
    ``timeout`` is for each step; seconds.
    """

    route: str
    era: Era | None
    version: str
    revision: str = LATEST_LEGACY
    timeout: float = 10.0
    silence: float = 2.0
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    @property
    def client_info(self) -> JsonObject:
        """The gateway by name."""
        return {"name": "mcp-gateway", "version": self.version}

    async def say(self, ask: Ask, notify: Notify) -> Greeting:
        """Greet.

        Raises:
            WrongEra: the backend speaks the other one, or ended because it was asked.
            HandshakeRefused: ``initialize`` was answered with an HTTP error.
            BackendUnavailable: no usable answer.
        """
        if self.era is None:
            return await self._find_out(ask, notify)
        if self.era == "modern":
            greeting = self._discovered(await ask("server/discover", self._discover(), self.timeout))
            if greeting is not None:
                return greeting
        return await self._begun(await ask("initialize", self._initialize(), self.timeout), notify)

    async def _find_out(self, ask: Ask, notify: Notify) -> Greeting:
        """Silence may be that of a server without an answer, or of one that still starts: the first answer decides."""
        asked = asyncio.ensure_future(ask("server/discover", self._discover(), self.timeout))
        tasks = [asked]
        try:
            await asyncio.wait(tasks, timeout=self.silence)
            if asked.done() and (greeting := self._discovered(asked.result())) is not None:
                return greeting
            begun = asyncio.ensure_future(ask("initialize", self._initialize(), self.timeout))
            tasks.append(begun)
            if not asked.done() and (greeting := await self._late(asked, begun)) is not None:
                return greeting
            return await self._begun(await begun, notify)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _late(
        self, asked: asyncio.Future[verdict.Answer], begun: asyncio.Future[verdict.Answer]
    ) -> Greeting | None:
        """What a late answer says, if it comes before a result of ``initialize``, which a modern server refuses."""
        await asyncio.wait((asked, begun), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done() and begun.result().result is not None:
            return None
        return self._discovered(await asked)

    async def _begun(self, answer: verdict.Answer, notify: Notify) -> Greeting:
        greeting = self._initialized(answer)
        await notify("notifications/initialized", greeting.revision)
        return greeting

    def _discover(self) -> JsonObject:
        meta = {PROTOCOL_VERSION: MODERN[-1], CLIENT_CAPABILITIES: {}, CLIENT_INFO: self.client_info}
        return {"_meta": meta}

    def _initialize(self) -> JsonObject:
        capabilities = dict(self.capabilities)
        return {"protocolVersion": self.revision, "capabilities": capabilities, "clientInfo": self.client_info}

    def _discovered(self, answer: verdict.Answer) -> Greeting | None:
        """None means: go on with ``initialize``."""
        result, error = answer.result or {}, answer.error
        if error is not None and error.code == CONNECTION_CLOSED:
            raise link.wrong_era(self.route)
        if answer.result is not None:
            era = probe.era_of_result(result)
        else:
            era = probe.era_of_error(error.code, error.data) if error is not None else "legacy"
        if era == "modern":
            return Greeting("modern", MODERN[-1], _object(result, "capabilities"), probe.server_info_of(result))
        if self.era == "modern":
            raise link.wrong_era(self.route)
        return None

    def _initialized(self, answer: verdict.Answer) -> Greeting:
        if answer.error is not None:
            self._raise_failure(answer.error.code, answer.exchange)
        result = answer.result or {}
        if not probe.speaks(result.get("protocolVersion")):
            raise link.unreachable(self.route)
        return Greeting(
            "legacy", result["protocolVersion"], _object(result, "capabilities"), probe.server_info_of(result)
        )

    def _raise_failure(self, code: int, exchange: Exchange) -> None:
        verdict.raise_fault(self.route, exchange)
        if code == UNSUPPORTED_VERSION:
            raise link.wrong_era(self.route)
        if exchange.status in (400, 404, 405):
            raise link.HandshakeRefused(self.route, exchange.status)
        if exchange.status in (401, 403):
            raise link.not_admitted(self.route)
        if code == METHOD_NOT_FOUND:
            raise link.wrong_era(self.route)


def _object(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = result.get(name)
    return value if isinstance(value, dict) else {}
