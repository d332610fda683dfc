"""The issuers' public keys: found, fetched, kept, replaced.

Rules of this file:

- Only what the configuration names is fetched, or what the configured issuer's own metadata names (RFC 8414, OpenID
  Connect Discovery); never anything out of a token.
- Requests do not wait for a fetch while the keys are younger than ``ttl``; a background task refreshes them before.
- All callers share one fetch, and attempts are at least ``cooldown`` apart, whatever their result.
- A fetch that fails, or brings no usable key, replaces nothing; the last good keys go on for ``stale`` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from gateway.egress.addresses import Reach
from gateway.egress.documents import (
    FETCH_TIMEOUT,
    MAX_DOCUMENT,
    UnusableError,
    document_client,
    fetch,
    is_secure,
    metadata_urls,
    reach_of,
)
from gateway.errors import IssuerUnavailable
from gateway.stores.key_sets import Key, jwks_uri_of, key_set

if TYPE_CHECKING:
    from gateway.routes import Auth, Issuer

_REFRESH_AT = 0.8
"""The part of ``ttl`` after which the background task refreshes."""
Fetch = Callable[[str, Reach], Awaitable[bytes]]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Generation:
    number: int = 0


class JwksStore:
    """Implements ``ports.SigningKeys`` over HTTP or files.

    ``clock`` gives monotonic seconds, ``sleep`` waits for so many. Call ``start`` in the event loop that uses it and
    ``aclose`` when done.
    """

    def __init__(
        self,
        auth: Auth,
        client: Callable[[Reach], httpx2.AsyncClient] = document_client,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client_factory = client
        self._clients: dict[Reach, httpx2.AsyncClient] = {}
        self._sleep = sleep
        self._generation = _Generation()
        self._closed = False
        self._background: list[asyncio.Task[None]] = []
        self._sources = {
            each.issuer: _Source(each, auth, self._document, self._generation, clock)
            for each in auth.issuers
            if each.has_keys
        }

    @property
    def generation(self) -> int:
        """Changes whenever the keys of an issuer changed or became too old."""
        return self._generation.number

    @property
    def without_keys(self) -> tuple[str, ...]:
        """The issuers of which no usable keys are at hand."""
        return tuple(name for name, source in self._sources.items() if not source.usable())

    @property
    def ready(self) -> bool:
        """Whether tokens of at least one issuer can be judged."""
        return len(self.without_keys) < len(self._sources) or not self._sources

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        """The public keys that may have signed such a token, as ``cryptography`` objects.

        Raises:
            IssuerUnavailable: the issuer's keys were never had, or are older than ``stale``.
        """
        source = self._sources.get(issuer)
        if source is None:
            return ()
        found = source.match(kid, algorithm) if source.fresh() else ()
        if not found and not self._closed and source.may_attempt():
            await source.refresh()
        if not source.usable():
            raise IssuerUnavailable(
                "The keys of the token's issuer are not available now, so the token cannot be judged; try again.",
                retry_after=source.seconds_to_attempt(),
            )
        return found or source.match(kid, algorithm)

    async def start(self) -> None:
        """Try the first fetch of every issuer, then keep all refreshed. An issuer that is away is no error here."""
        await asyncio.gather(*(source.refresh() for source in self._sources.values()))
        self._background = [asyncio.create_task(self._keep(source)) for source in self._sources.values()]

    async def aclose(self) -> None:
        """End the background tasks and close the connections; the keys at hand stay usable until they are too old."""
        self._closed = True
        tasks = self._background + [source.running for source in self._sources.values() if source.running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()

    async def _keep(self, source: _Source) -> None:
        while True:
            await self._sleep(max(source.seconds_to_refresh(), 1.0))
            if source.seconds_to_refresh() <= 0:
                await source.refresh()

    async def _document(self, url: str, reach: Reach) -> bytes:
        if reach not in self._clients:
            self._clients[reach] = self._client_factory(reach)
        return await fetch(self._clients[reach], url, timeout=FETCH_TIMEOUT)


class _Source:
    """The keys of one issuer and when they are to be fetched."""

    def __init__(
        self, issuer: Issuer, auth: Auth, document: Fetch, generation: _Generation, clock: Callable[[], float]
    ) -> None:
        self.running: asyncio.Task[None] | None = None
        self._issuer = issuer
        self._times = auth.jwks
        self._document = document
        self._generation = generation
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = float("-inf")
        self._next_attempt = float("-inf")
        self._failures = 0
        self._discovered: str | None = None
        self._file_version: tuple[int, int, int] | None = None

    def match(self, kid: str | None, algorithm: str) -> tuple[Any, ...]:
        keys = (key for key in self._keys if kid is None or kid == key.kid)
        return tuple(key.public for key in keys if algorithm in key.algorithms)

    def fresh(self) -> bool:
        """Whether the keys are younger than ``ttl``."""
        return bool(self._clock() < self._fetched_at + self._times.ttl)

    def usable(self) -> bool:
        """Whether there are keys; drops those that are too old."""
        if self._keys and self._clock() >= self._fetched_at + self._times.stale:
            self._replace(())
            self._file_version = None
            _log.error("the keys of issuer %s are too old to be used", self._issuer.issuer)
        return bool(self._keys)

    def may_attempt(self) -> bool:
        return self.running is not None or self._clock() >= self._next_attempt

    def seconds_to_attempt(self) -> float:
        return max(0.0, self._next_attempt - self._clock())

    def seconds_to_refresh(self) -> float:
        due = self._next_attempt
        if self._failures == 0:
            due = max(due, self._fetched_at + _REFRESH_AT * self._times.ttl)
        return max(0.0, due - self._clock())

    async def refresh(self) -> None:
        """One attempt, shared by all who wait for it. Does not fail, and a caller that is cancelled stops nothing."""
        if self.running is None:
            self.running = asyncio.create_task(self._attempt())
        task = self.running
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _attempt(self) -> None:
        self._next_attempt = self._clock() + self._times.cooldown
        try:
            keys = await self._fetch()
        except UnusableError as error:
            self._failed(error)
        else:
            self._failures = 0
            self._fetched_at = self._clock()
            if keys is not None and set(keys) != set(self._keys):
                self._replace(keys)
        finally:
            self.running = None

    def _failed(self, error: UnusableError) -> None:
        """Keep what there is. An issuer whose keys were never had is asked again sooner: 1, 2, 4 seconds and so on."""
        self._discovered = None
        self._failures += 1
        if not self.usable():
            self._next_attempt = self._clock() + min(self._times.cooldown, 2.0 ** min(self._failures - 1, 10))
        _log.warning("the keys of issuer %s were not refreshed: %s", self._issuer.issuer, error)

    def _replace(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self._generation.number += 1

    async def _fetch(self) -> tuple[Key, ...] | None:
        """The keys, or None where they are surely the ones at hand."""
        if self._issuer.jwks_file is not None:
            return await self._read(self._issuer.jwks_file)
        if self._issuer.jwks_uri is not None:
            return key_set(await self._document(self._issuer.jwks_uri, "configured"))
        if self._discovered is None:
            self._discovered = await self._discover()
        return key_set(await self._document(self._discovered, reach_of(self._discovered, self._issuer.issuer)))

    async def _read(self, path: str) -> tuple[Key, ...] | None:
        version, text = await asyncio.to_thread(_read_if_changed, path, self._file_version)
        if text is None:
            return None
        keys = key_set(text)
        self._file_version = version
        return keys

    async def _discover(self) -> str:
        if not is_secure(self._issuer.issuer):
            raise UnusableError("keys are discovered over https only; name jwks_uri or jwks_file")
        errors = []
        for url in metadata_urls(self._issuer.issuer):
            try:
                return jwks_uri_of(await self._document(url, "configured"), self._issuer.issuer)
            except UnusableError as error:
                errors.append(str(error))
        raise UnusableError("its metadata was not found: " + "; ".join(errors))


def _read_if_changed(path: str, known: tuple[int, int, int] | None) -> tuple[tuple[int, int, int], bytes | None]:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            text = None if version == known else file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise UnusableError(f"cannot read {path}: {error.strerror}") from error
    if text is not None and len(text) > MAX_DOCUMENT:
        raise UnusableError(f"longer than {MAX_DOCUMENT} bytes")
    return version, text
