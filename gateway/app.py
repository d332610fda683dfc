"""The composition root: plugs the edges into the core, and changes the plugs when the routes change."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import watchfiles

from gateway import catalog
from gateway.backends.route_backend import RouteBackend
from gateway.errors import ConfigError
from gateway.exchange import Policy, Rules
from gateway.http.application import Application
from gateway.http.conversations import Conversations
from gateway.http.endpoint import Endpoint
from gateway.http.guards import BrowserGuard
from gateway.http.operations import Probes, metadata_app, operations_app
from gateway.http.server import GatewayProtocol
from gateway.http.subscriptions import Subscriptions
from gateway.models import Change, Listing
from gateway.pipeline import Pipeline
from gateway.policy.authenticate import JwtAuthenticator
from gateway.policy.authorize import authorize
from gateway.policy.rate_limit import RateLimit
from gateway.policy.validate import Validate
from gateway.ports import NO_TRACING, Authenticate, LimitStore, Sessions
from gateway.protocol.lifecycle import server_info
from gateway.protocol.request_state import RequestStates
from gateway.protocol.session import SessionSealer
from gateway.replicas import Replicas
from gateway.routes import Auth, Route, Routes
from gateway.seen import SeenUris
from gateway.settings import Settings
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_sinks import open_sinks
from gateway.stores.jwks import JwksStore
from gateway.stores.limits_memory import MemoryLimits
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.relay import MemoryRelay
from gateway.stores.relay_redis import RedisRelay
from gateway.stores.sessions import MemorySessions, RedisSessions
from gateway.telemetry.metrics import CONTENT_TYPE, SHARED, Metrics
from gateway.telemetry.tracing import open_tracer

log = logging.getLogger(__name__)

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
        self._content = _content(Path(settings.config))
        routes = load()
        keys = settings.key_ring or (os.urandom(32),)
        self.metrics = Metrics(version)
        self.hub = Subscriptions(
            on_count=lambda count: self.metrics.sessions.labels("client").set(count), on_wanted=self._wanted
        )
        self.audit = AuditWriter(
            open_sinks(",".join(_specification(sink) for sink in settings.audit), keys[0]),
            on_failure=settings.on_audit_failure,
            durability=settings.audit_durability,
            arguments_mode=routes.audit_arguments,
            key=keys[0],
            on_result=self.metrics.audit,
        )
        self._limits, self._sessions = self._stores()
        self._jwks: JwksStore | None = None
        self.backends: dict[str, RouteBackend] = {}
        self._listings: dict[str, Listing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self.draining = False
        self.tried = asyncio.Event()
        self._relay: MemoryRelay | RedisRelay = (
            MemoryRelay() if settings.redis_url is None else RedisRelay(settings.redis_url.get_secret_value(), keys)
        )
        self._conversations = Conversations(self._relay.here)
        self._tracer = open_tracer(os.environ, version=version)
        replicas = Replicas(
            self._relay, self._conversations, self.hub, present=lambda: self.pipeline.rules, now=time.time
        )
        policy = Policy(
            checks=(authorize, RateLimit(self._limits, self.metrics), Validate()),
            audit=self.audit,
            server_info=server_info(version),
            states=RequestStates(keys, time.time),
            sessions=self._sessions,
            conversations=replicas,
            hub=self.hub,
            elsewhere=replicas,
            tracer=self._tracer or NO_TRACING,
            seen=SeenUris(),
            present=lambda: self.pipeline.rules,
            now=time.time,
        )
        self.pipeline = Pipeline(
            self._rules(routes, _nobody),
            policy,
            sealer=SessionSealer(keys, time.time),
            meter=self.metrics,
            failed=_log_failure,
        )

    # What is served

    def applications(self) -> tuple[Any, Any | None]:
        """The ASGI application for agents, and the one for operators where they have a port of their own."""
        settings, auth = self._settings, self.pipeline.rules.routes.auth
        GatewayProtocol.head_timeout = settings.header_timeout_seconds
        GatewayProtocol.body_timeout = settings.body_timeout_seconds
        GatewayProtocol.refused = self.pipeline.unreadable
        hosts = (*settings.allowed_hosts, *_hosts_of(auth))
        guard = BrowserGuard(settings.host, hosts, settings.allowed_origins)
        endpoint = Endpoint(self.pipeline, guard, self._conversations, max_body=settings.max_body_bytes)
        token = settings.metrics_token
        probes = Probes(self.problems, self._exposition, token.get_secret_value() if token else None)
        operations = operations_app(probes)
        metadata = metadata_app(lambda: self.pipeline.rules)
        shared = None if settings.ops_port is not None else operations
        application = Application(endpoint, metadata, shared, started=self.start, stopped=self.stop)
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
        if self._jwks is not None and not self._jwks.ready:
            found.append(f"keys: none of these issuers: {', '.join(self._jwks.without_keys)}")
        return found

    # Life

    async def start(self) -> None:
        """Start all that runs beside requests; ``problems`` tells when it is ready. Several workers wait for that."""
        self.audit.start()
        for sink in self._settings.audit:
            self.metrics.audit(sink.kind, "failed", 0)
        if isinstance(self._limits, RedisLimits):
            await self._limits.start()
        await self._relay.start()
        await self._adopt(self.pipeline.rules.routes)
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
        await asyncio.gather(*(backend.aclose() for backend in self.backends.values()))
        if self._jwks is not None:
            await self._jwks.aclose()
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

    async def first_attempts(self) -> None:
        """Wait until every backend was tried once, reached or not."""
        await asyncio.gather(*(backend.first_attempt() for backend in self.backends.values()))

    async def _first_attempts(self) -> None:
        await self.first_attempts()
        self.tried.set()

    async def _share_metrics(self) -> None:
        """Whichever worker is scraped, what the others have counted is there."""
        while True:
            await asyncio.sleep(_SHARE_SECONDS)
            self._refresh_gauges()
            self.metrics.flush()

    async def _reload(self) -> None:
        async with self._reloading:
            await self._reload_alone()

    async def _reload_alone(self) -> None:
        try:
            routes = await asyncio.to_thread(self._load)
        except ConfigError as error:
            self.metrics.reloaded.set(0)
            log.error("routes not reloaded, the old ones stay:\n%s", error)
            return
        self.metrics.reloaded.set(1)
        await self._adopt(routes)
        log.info("routes reloaded", extra={"routes": [route.name for route in routes.routes]})

    async def _watch(self) -> None:
        """Reload when the file's content changes.

        Its folder is watched: a ConfigMap is swapped by a link beside the file. Our own log may be in there too. Some
        file systems tell nothing of changes, so every few seconds is a look without any.
        """
        path = Path(self._settings.config)
        last = self._content
        async for _changes in watchfiles.awatch(
            self._folder, recursive=False, rust_timeout=_LOOK_MILLISECONDS, yield_on_timeout=True
        ):
            content = await asyncio.to_thread(_content, path)
            if content != last:
                last = content
                await self._reload()

    # Swapping the rules

    async def _adopt(self, routes: Routes) -> None:
        """Make these routes the rules: keep what did not change, start what is new, retire what is gone."""
        authenticate, jwks = await self._authenticator(routes.auth)
        old = self.backends
        self.backends = {route.name: self._backend(route, old.get(route.name)) for route in routes.routes}
        kept = {id(backend) for backend in self.backends.values()}
        for name, backend in old.items():
            if id(backend) not in kept:
                self._listings.pop(name, None)
                self.spawn(backend.retire())
        self.audit.keep_arguments(routes.audit_arguments)
        self.pipeline.rules = self._rules(routes, authenticate)
        self.hub.catalog_changed()
        for name, backend in self.backends.items():
            backend.watch(self.hub.wanted(name))
        if self._jwks is not None and self._jwks is not jwks:
            await self._jwks.aclose()
        self._jwks = jwks

    async def _authenticator(self, auth: Auth | None) -> tuple[Authenticate, JwksStore | None]:
        if auth is None:
            return _nobody, None
        current = self.pipeline.rules
        if self._jwks is not None and current.routes.auth == auth:
            return current.authenticate, self._jwks
        jwks = JwksStore(auth)
        await jwks.start()
        return JwtAuthenticator(auth, jwks), jwks

    def _backend(self, route: Route, current: RouteBackend | None) -> RouteBackend:
        if current is not None and current.serves(route):
            return current
        backend = RouteBackend(
            route, on_listing=self._listed, on_change=self._changed, meter=self.metrics, version=self._version
        )
        backend.start()
        return backend

    def _listed(self, listing: Listing) -> None:
        """A backend's tools changed: a new catalogue, and clients are told."""
        self._listings[listing.route] = listing
        rules = self.pipeline.rules
        self.pipeline.rules = replace(rules, catalog=self._catalog(rules.routes))

    def _changed(self, change: Change) -> None:
        """A backend says that something of it changed; the catalogue already has it."""
        self.hub.changed(change)

    def _wanted(self, route: str, uris: frozenset[str]) -> None:
        """Clients watch other resources of a route than before."""
        backend = self.backends.get(route)
        if backend is not None:
            backend.watch(uris)

    def _rules(self, routes: Routes, authenticate: Authenticate) -> Rules:
        return Rules(
            authenticate=authenticate,
            routes=routes,
            catalog=self._catalog(routes),
            backends=dict(self.backends),
            scopes={None: scopes_of(routes, None), **{name: scopes_of(routes, name) for name in routes.toolsets}},
            by_name={route.name: route for route in routes.routes},
        )

    def _catalog(self, routes: Routes) -> catalog.Catalog:
        built = catalog.build(routes, self._listings)
        for omission in built.omissions:
            log.warning("left out", extra={"route": omission.route, "entry": omission.name, "reason": omission.reason})
        return built

    # Small things

    def _stores(self) -> tuple[LimitStore, Sessions]:
        settings = self._settings
        if settings.redis_url is None:
            return MemoryLimits(), MemorySessions()
        limits = RedisLimits(
            settings.redis_url.get_secret_value(),
            on_failure=settings.on_redis_failure,
            expected_replicas=settings.expected_replicas,
            on_change=lambda up: self.metrics.redis_up.set(int(up)),
        )
        return limits, RedisSessions(limits.connection)

    def _exposition(self) -> tuple[bytes, str]:
        return self.metrics.render(self._refresh_gauges), CONTENT_TYPE

    def _refresh_gauges(self) -> None:
        for name, backend in self.backends.items():
            self.metrics.up.labels(name).set(int(backend.up))
            self.metrics.breaker.labels(name).set(backend.breaker_state)
            listing = self._listings.get(name)
            self.metrics.catalog_tools.labels(name).set(len(listing.tools) if listing else 0)
            if backend.listing is not None:
                self.metrics.catalog_age.labels(name).set(time.monotonic() - backend.listing.fetched_at)
        self.metrics.sessions.labels("backend").set(sum(backend.sessions for backend in self.backends.values()))

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


def scopes_of(routes: Routes, toolset: str | None) -> frozenset[str]:
    """Every scope that some tool of a toolset may need, whether its backend was reached yet or not."""
    selected = routes.toolsets[toolset].routes if toolset is not None else [route.name for route in routes.routes]
    of_routes = [route for route in routes.routes if route.name in selected]
    needed: set[str] = set()
    for route in of_routes:
        needed.update(route.scopes or ())
        for rule in route.tools.values():
            needed.update(rule.scopes or ())
    return frozenset(needed)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


async def _nobody(headers: Sequence[bytes]) -> Any:
    """No authentication is configured; the pipeline never asks."""
    raise NotImplementedError


def _specification(sink: Any) -> str:
    return f"file:{sink.path}" if sink.kind == "file" else str(sink.kind)


def _hosts_of(auth: Auth | None) -> tuple[str, ...]:
    return (auth.resource.partition("://")[2].partition("/")[0],) if auth is not None else ()


def _log_failure(request_id: str, error: Exception) -> None:
    log.error("request failed unexpectedly", exc_info=error, extra={"request_id": request_id})
