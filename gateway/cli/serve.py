"""``serve``: the gateway as a process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from gateway import __version__
from gateway.cli.output import UNUSABLE, err, fail
from gateway.errors import ConfigError, Problem
from gateway.http.guards import is_loopback
from gateway.http.runner import Runner, bind
from gateway.routes import Routes, load
from gateway.settings import Settings
from gateway.telemetry.logs import configure
from gateway.workers import Workers

if TYPE_CHECKING:
    from gateway.app import Gateway

log = logging.getLogger(__name__)

Load = Callable[[], Routes]
Started = Callable[["Gateway", int], None]


def serve() -> None:
    """Serve the routes of GATEWAY_CONFIG. Settings come from the environment: docs/configuration.md."""
    settings = read_settings(os.environ)
    configure(settings.log_level)
    raise SystemExit(run(settings, loader(settings, os.environ)))


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings, or every problem with them and exit 2."""
    try:
        return Settings.load(environ)
    except ConfigError as error:
        fail(str(error), UNUSABLE)


def loader(settings: Settings, environ: Mapping[str, str]) -> Load:
    """Reads the routes and holds them to what the process allows."""

    def read() -> Routes:
        routes = load(Path(settings.config), environ)
        if routes.auth is None and not is_loopback(settings.host):
            hint = "add auth: with your issuer, or listen on 127.0.0.1"
            message = f"is missing, and the gateway listens on {settings.host}: anybody could call every tool"
            raise ConfigError([Problem(str(settings.config), None, "auth", message, hint)])
        return routes

    return read


def run(settings: Settings, read: Load, *, started: Started | None = None) -> int:
    """Serve until a signal; the exit code. Several workers are forked here, before any thread exists."""
    _warn_when_open(_first_read(read))
    try:
        listener = bind(settings.host, settings.port)
        operations = bind(settings.host, settings.ops_port) if settings.ops_port is not None else None
    except OSError as error:
        fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", UNUSABLE)
    if settings.workers == 1:
        return _work(settings, read, listener, operations, started)
    shared = tempfile.mkdtemp(prefix="mcp-gateway-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
    try:
        work = partial(_work, settings, read, listener, operations, started)
        return Workers(settings.workers, work, ended=partial(_forget_gauges, Path(shared))).run()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _forget_gauges(shared: Path, pid: int) -> None:
    """What an ended worker had in hand counts no more: ``prometheus_client.multiprocess.mark_process_dead``.

    Done by hand, because that module must not be imported before the fork.
    """
    for file in shared.glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def _work(
    settings: Settings,
    read: Load,
    listener: socket.socket,
    operations: socket.socket | None,
    started: Started | None,
) -> int:
    # Imported here: prometheus_client decides at import whether it counts for one process or for several.
    from gateway.app import Gateway

    async def main() -> None:
        gateway = Gateway(settings, read, version=__version__)
        application, operations_application = gateway.applications()
        runner = Runner(
            draining=gateway.drain,
            stopping=gateway.hub.close,
            reload=gateway.reload,
            drain_delay=settings.drain_delay_seconds,
            drain=settings.drain_seconds,
        )
        served = [(application, [listener])]
        if operations is not None and operations_application is not None:
            served.append((operations_application, [operations]))
        _calm_the_collector()
        if started is not None:
            started(gateway, listener.getsockname()[1])
        await runner.serve(served)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except ConfigError as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return UNUSABLE
    return 0


def _calm_the_collector() -> None:
    """What is loaded now lives as long as the process: never walk it again, and look for cycles less often.

    Requests make hardly any cycles; with the defaults the collector took 8 % of the time of a call.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _first_read(read: Load) -> Routes:
    try:
        return read()
    except ConfigError as error:
        fail(str(error), UNUSABLE)


def _warn_when_open(routes: Routes) -> None:
    if routes.auth is None:
        log.warning("NO AUTHENTICATION: routes.yaml has no auth, everybody on this machine may call every tool")
        sys.stderr.flush()
