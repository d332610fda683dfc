"""The composition root: plugs the edges into the core, and begins and ends everything."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import watchfiles

from gateway.accounts import open_connections
from gateway.audit import AuditEvent
from gateway.backends.bulkhead import Bulkhead
from gateway.backends.credentials.connecting import ConnectError
from gateway.backends.route_backend import RouteBackend
from gateway.definitions.lock import NO_LOCK, Lock
from gateway.definitions.lock_file import lock_path, read_lock
from gateway.errors import ConfigError, Problem
from gateway.exchange import Policy, Rules
from gateway.http.application import Application
from gateway.http.connect import connect_app
from gateway.http.conversations import Conversations
from gateway.http.endpoint import Endpoint
from gateway.http.guards import BrowserGuard
from gateway.http.operations import Probes, metadata_app, operations_app
from gateway.http.proxies import TrustedProxies
from gateway.http.server import GatewayProtocol
from gateway.http.subscriptions import Subscriptions
from gateway.pipeline import Pipeline
from gateway.policy.authorize import authorize
from gateway.policy.failed_authentications import FailedAuthentications
from gateway.policy.principal_concurrency import PrincipalConcurrency
from gateway.policy.rate_limit import RateLimit
from gateway.policy.validate import Validate
from gateway.ports import NO_TRACING, LimitStore, Sessions
from gateway.protocol.lifecycle import server_info
from gateway.protocol.request_state import RequestStates
from gateway.protocol.session import SessionSealer
from gateway.replicas import Replicas
from gateway.routes import Auth, Routes
from gateway.rulebook import Rulebook
from gateway.seen import SeenUris
from gateway.settings import Settings
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_sinks import open_sinks
from gateway.stores.limits_memory import MemoryLimits
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.relay import MemoryRelay
from gateway.stores.relay_redis import RedisRelay
from gateway.stores.sessions import MemorySessions, RedisSessions
from gateway.stores.vault import MemoryVault, RedisVault
from gateway.telemetry.metrics import CONTENT_TYPE, SHARED, Metrics
from gateway.telemetry.tracing import open_tracer
from gateway.vault import Vault

log = logging.getLogger(__name__)

_WAITING_CALLS = 256  # of one principal, beyond those that are under way
_SHARE_SECONDS = 1.0
_TRACES_SECONDS = 3.0
_LOOK_MILLISECONDS = 5000


class Gateway:
    """One process of the gateway. Construct, ``start``, serve ``application``, ``stop``.

    Args:
        settings: the process.
        load: reads the routes anew; raises ``ConfigError``.
        version: ours, as clients and metrics are told.
    """

    def __init__(self, settings: Settings, load: Callable[[], Routes], *, version: str) -> None:
        self._settings = settings
        self._load = load
        self._version = version
        # Not resolved: a ConfigMap's file is a link, and what it leads to is replaced with its folder.
        self._folder = Path(settings.config).absolute().parent
        self._lock_path = lock_path(settings.config)
        self._version_read = self._versions()
        routes, lock = self._load_all()
        keys = settings.key_ring or (os.urandom(32),)
        self.metrics = Metrics(version)
        self.hub = Subscriptions(
            on_count=lambda count: self.metrics.sessions.labels("client").set(count),
            on_wanted=self._wanted,
        )
        self._book = Rulebook(
            routes,
            metrics=self.metrics,
            hub=self.hub,
            spawn=self.spawn,
            version=version,
            max_response=settings.max_response_bytes,
            lock=lock,
            record=self._record,
        )
        self.audit = AuditWriter(
            open_sinks(settings, keys[0]),
            on_failure=settings.on_audit_failure,
            durability=settings.audit_durability,
            arguments_mode=routes.audit_arguments,
            results_mode=routes.audit_results,
            key=keys[0],
            on_result=self.metrics.audit,
        )
        self._limits, self._sessions, vault = self._stores()
        self._connections = self._book.connections = open_connections(
            keys, vault, lambda: self._book.rules.routes.auth, self.audit
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self.draining = False
        self.tried = asyncio.Event()
        self._relay = self._open_relay(keys)
        self._conversations = Conversations(self._relay.here)
        self._tracer = open_tracer(os.environ, version=version)
        self.pipeline = Pipeline(
            self._policy(keys),
            sealer=SessionSealer(keys, time.time),
            meter=self.metrics,
            failed=_log_failure,
        )

    def _policy(self, keys: Sequence[bytes]) -> Policy:
        """The checks in their order, and everything else that an exchange needs."""

        def present() -> Rules:
            return self._book.rules

        seen = SeenUris()
        replicas = Replicas(self._relay, self._conversations, self.hub, present=present, seen=seen, now=time.time)
        return Policy(
            checks=(
                authorize,
                PrincipalConcurrency(lambda most: Bulkhead(most, queue=_WAITING_CALLS), self.metrics),
                RateLimit(self._limits, self.metrics),
                Validate(),
            ),
            audit=self.audit,
            server_info=server_info(self._version),
            states=RequestStates(keys, time.time),
            sessions=self._sessions,
            conversations=replicas,
            hub=self.hub,
            elsewhere=replicas,
            tracer=self._tracer or NO_TRACING,
            seen=seen,
            failures=FailedAuthentications(self._settings.auth_failures_per_minute),
            present=present,
            now=time.time,
            pause=asyncio.sleep,
        )

    # What is served

    def applications(self) -> tuple[Any, Any | None]:
        """The ASGI application for agents, and the one for operators where they have a port of their own."""
        settings, auth = self._settings, self._book.rules.routes.auth
        GatewayProtocol.head_timeout = settings.header_timeout_seconds
        GatewayProtocol.body_timeout = settings.body_timeout_seconds
        GatewayProtocol.refused = self.pipeline.unreadable
        hosts = (*settings.allowed_hosts, *_hosts_of(auth))
        guard = BrowserGuard(settings.host, hosts, settings.allowed_origins)
        proxies = TrustedProxies(settings.trusted_proxies)
        endpoint = Endpoint(
            self.pipeline, guard, self._conversations, proxies=proxies, max_body=settings.max_body_bytes
        )
        token = settings.metrics_token
        probes = Probes(self.problems, self.degraded, self._exposition, token.get_secret_value() if token else None)
        operations = operations_app(probes)
        metadata = metadata_app(lambda: self._book.rules)
        shared = None if settings.ops_port is not None else operations
        connect = connect_app(self._connections, ConnectError)
        application = Application(endpoint, metadata, shared, connect=connect, started=self.start, stopped=self.stop)
        return application, (None if shared is not None else operations)

    def problems(self) -> list[str]:
        """What keeps this process from being ready, in words for operators."""
        found = []
        if self.draining:
            found.append("draining: the process was told to stop")
        if not self.tried.is_set():
            found.append("catalogue: the first attempt to list the backends is not finished")
        if not self.audit.healthy:
            found.append("audit: the log cannot be written, so no call is executed")
        issuers = self._book.issuers
        if issuers is not None and not issuers.keys.ready:
            found.append(f"keys: none of these issuers: {', '.join(issuers.keys.without_keys)}")
        if self._redis_is_away() and self._settings.on_redis_failure == "closed":
            found.append("redis: away, and without it no call is allowed (GATEWAY_ON_REDIS_FAILURE=closed)")
        return found

    def degraded(self) -> list[str]:
        """What is away while the process serves on, in words for operators."""
        found = [f"backend: {name} is away" for name, backend in self.backends.items() if not backend.up]
        for (name, kind), withheld in self._book.quarantined().items():
            found.append(f"pins: {len(withheld)} {kind}(s) of {name} quarantined: {_some(withheld)}")
        introspector = self._book.issuers.introspector if self._book.issuers is not None else None
        if introspector is not None and introspector.failing:
            found.append(f"introspection: {introspector.issuer} does not answer; its tokens are a 503")
        found += [f"audit: the sink {name} cannot be written" for name in self.audit.failing]
        if self._redis_is_away():
            found.append(f"redis: away (GATEWAY_REDIS_URL); limits are {self._settings.on_redis_failure}")
        return found

    def _redis_is_away(self) -> bool:
        return isinstance(self._limits, RedisLimits) and not self._limits.up

    # Life

    async def start(self) -> None:
        """Start all that runs beside requests; ``problems`` tells when it is ready. Several workers wait for that."""
        self.audit.start()
        for sink in self._settings.audit:
            self.metrics.audit(sink.kind, "failed", 0)
        if isinstance(self._limits, RedisLimits):
            await self._limits.start()
        await self._relay.start()
        await self._book.adopt(self._book.rules.routes, self._book.lock)
        self.spawn(self._first_attempts())
        self.spawn(self._watch())
        if self._settings.workers > 1:
            # Workers share a socket: one that is not ready must not take what another could serve.
            await self.tried.wait()
        if SHARED:
            self.spawn(self._share_metrics())

    async def stop(self) -> None:
        """End backends and background work, then flush the audit."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._book.aclose()
        if isinstance(self._limits, RedisLimits):
            await self._limits.aclose()
        await self._relay.aclose()
        if self._tracer is not None:
            await self._tracer.aclose(_TRACES_SECONDS)
        await self.audit.aclose()

    def drain(self) -> None:
        """No longer ready; requests are still served."""
        self.draining = True

    def reload(self) -> None:
        """Read the routes anew, in the background; a broken file changes nothing."""
        self.spawn(self._reload())

    @property
    def backends(self) -> Mapping[str, RouteBackend]:
        """Those of the present rules."""
        return self._book.backends

    async def _first_attempts(self) -> None:
        await self._book.first_attempts()
        self.tried.set()

    async def _share_metrics(self) -> None:
        """Whichever worker is scraped, what the others have counted is there."""
        while True:
            await asyncio.sleep(_SHARE_SECONDS)
            self._book.gauge()
            self.metrics.flush()

    async def _reload(self) -> None:
        async with self._reloading:
            await self._reload_alone()

    async def _reload_alone(self) -> None:
        try:
            routes, lock = await asyncio.to_thread(self._load_all)
        except ConfigError as error:
            self.metrics.reloaded.set(0)
            log.error("routes not reloaded, the old ones stay:\n%s", error)
            return
        self.metrics.reloaded.set(1)
        self.audit.keep(routes.audit_arguments, routes.audit_results)
        await self._book.adopt(routes, lock)
        log.info("routes reloaded", extra={"routes": [route.name for route in routes.routes]})

    async def _watch(self) -> None:
        """Reload when the file, or the lock beside it, is another one or was written to.

        Its folder is watched: a ConfigMap is swapped by a link beside the file. Our own log may be in there too. Some
        file systems tell nothing of changes, so every few seconds is a look without any.
        """
        last = self._version_read
        async for _changes in watchfiles.awatch(
            self._folder, recursive=False, rust_timeout=_LOOK_MILLISECONDS, yield_on_timeout=True
        ):
            found = await asyncio.to_thread(self._versions)
            if found != last:
                last = found  # before the load: what is written during it is found at the next look
                await self._reload()

    # Small things

    def _load_all(self) -> tuple[Routes, Lock]:
        """The routes, and the lock where one of them asks for it."""
        routes = self._load()
        pinned = [route.name for route in routes.routes if route.effective.pins.any]
        lock = read_lock(self._lock_path) if pinned else NO_LOCK
        if pinned and lock.missing:
            told = {"file": str(self._lock_path), "routes": pinned, "hint": "write it with mcp-gateway lock"}
            log.warning("there is no lock: nothing of these routes is approved", extra=told)
        return routes, lock

    def _record(self, event: AuditEvent) -> None:
        self.audit.append(event)

    def _versions(self) -> tuple[Any, ...]:
        return _version_of(self._settings.config), _version_of(self._lock_path)

    def _open_relay(self, keys: Sequence[bytes]) -> MemoryRelay | RedisRelay:
        settings = self._settings
        if settings.redis_url is None:
            return MemoryRelay()
        most = settings.max_response_bytes + (1 << 20)
        return RedisRelay(settings.redis_url.get_secret_value(), keys, max_bytes=most)

    def _stores(self) -> tuple[LimitStore, Sessions, Vault]:
        settings = self._settings
        if settings.redis_url is None:
            return MemoryLimits(), MemorySessions(), MemoryVault()
        try:
            limits = RedisLimits(
                settings.redis_url.get_secret_value(),
                on_failure=settings.on_redis_failure,
                expected_replicas=settings.expected_replicas,
                on_change=lambda up: self.metrics.redis_up.set(int(up)),
            )
        except ValueError as error:
            hint = "docs/scaling.md has what a URL may say"
            raise ConfigError([Problem("environment", None, "GATEWAY_REDIS_URL", str(error), hint)]) from None
        return limits, RedisSessions(limits.connection), RedisVault(limits.connection)

    def _exposition(self) -> tuple[bytes, str]:
        return self.metrics.render(self._book.gauge), CONTENT_TYPE

    def _wanted(self, route: str, uris: frozenset[str]) -> None:
        self._book.wanted(route, uris)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests until it ends or the gateway stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                log.error("background work failed", exc_info=error)


def _version_of(path: Path) -> tuple[int, ...] | None:
    """What differs after every write; not the content, which may be what it was before the last load."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _hosts_of(auth: Auth | None) -> tuple[str, ...]:
    return (auth.resource.partition("://")[2].partition("/")[0],) if auth is not None else ()


def _log_failure(request_id: str, error: Exception) -> None:
    log.error("request failed unexpectedly", exc_info=error, extra={"request_id": request_id})
