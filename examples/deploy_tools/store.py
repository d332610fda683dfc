"""Where deployments are kept: the port, and the one in memory."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

import anyio

from .errors import DeployInProgress, StoreUnavailable, UnknownService
from .models import Deployment, Environment, State

LEASE = timedelta(minutes=15)
"""A deployment in progress that is older than this was lost, and blocks no other."""

HISTORY = 100
"""Deployments kept for each service and environment."""

SEED: Mapping[str, Mapping[Environment, Sequence[str]]] = {
    "checkout": {
        Environment.DEV: ("2.4.0", "2.5.0-rc.1"),
        Environment.STAGING: ("2.4.0", "2.4.1"),
        Environment.PRODUCTION: ("2.3.7", "2.4.0"),
    },
    "payments": {Environment.STAGING: ("1.12.0",), Environment.PRODUCTION: ("1.11.2", "1.11.3")},
    "search": {Environment.DEV: ("0.9.0",), Environment.PRODUCTION: ("0.8.1", "0.8.2")},
}
"""Versions by service and environment, oldest first."""


class DeploymentStore(Protocol):
    """Deployments by service and environment. Every operation may raise ``StoreUnavailable``."""

    async def services(self) -> Sequence[str]:
        """The names of all services, sorted."""
        ...

    async def history(self, service: str, environment: Environment) -> Sequence[Deployment]:
        """Deployments, newest first; maybe none.

        Raises:
            UnknownService: there is no such service.
        """
        ...

    async def add(self, deployment: Deployment) -> None:
        """Record a new deployment. At most one of a service and environment is in progress; atomic.

        Raises:
            DeployInProgress: there is one.
        """
        ...

    async def replace(self, deployment: Deployment) -> None:
        """Record how a deployment goes on, found by its id."""
        ...


class InMemoryStore:
    """A store in this process that answers as slowly as a remote one, and can be away."""

    def __init__(
        self,
        services: Iterable[str],
        *,
        latency: float = 0.0,
        random: Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """``latency`` is the mean of an operation in seconds; it varies by half."""
        self._names = sorted(services)
        self._rows: dict[tuple[str, Environment], list[Deployment]] = {}
        self._latency = latency
        self._random = random or Random()  # noqa: S311 - jitter
        self._sleep = sleep
        self.outage = False

    async def services(self) -> Sequence[str]:
        """The names of all services, sorted."""
        await self._round_trip()
        return tuple(self._names)

    async def history(self, service: str, environment: Environment) -> Sequence[Deployment]:
        """Deployments, newest first; maybe none."""
        await self._round_trip()
        return tuple(reversed(self._of(service, environment)))

    async def add(self, deployment: Deployment) -> None:
        """Record a new deployment."""
        await self._round_trip()
        rows = self._of(deployment.service, deployment.environment)
        since = deployment.started_at - LEASE
        if any(row.state is State.IN_PROGRESS and row.started_at > since for row in rows):
            raise DeployInProgress(
                f"A deployment of {deployment.service} to {deployment.environment} is in progress.",
                hint="Ask get_deploy_status until it has ended, then try again.",
            )
        rows.append(deployment)
        del rows[:-HISTORY]

    async def replace(self, deployment: Deployment) -> None:
        """Record how a deployment goes on."""
        await self._round_trip()
        rows = self._of(deployment.service, deployment.environment)
        rows[:] = [deployment if row.id == deployment.id else row for row in rows]

    def _of(self, service: str, environment: Environment) -> list[Deployment]:
        if service not in self._names:
            raise UnknownService(f"There is no service {service}.", hint="Call list_services for the names.")
        return self._rows.setdefault((service, environment), [])

    async def _round_trip(self) -> None:
        if self._latency:
            await self._sleep(self._latency * self._random.uniform(0.5, 1.5))
        if self.outage:
            raise StoreUnavailable

    def seed(self, versions: Mapping[str, Mapping[Environment, Sequence[str]]], at: datetime) -> None:
        """Fill in deployments that succeeded one hour apart, the last one at ``at``."""
        numbers = itertools.count(1)
        for service, environments in versions.items():
            for environment, names in environments.items():
                for age, version in zip(range(len(names) - 1, -1, -1), names, strict=True):
                    done = at - timedelta(hours=age)
                    self._of(service, environment).append(
                        Deployment(
                            id=f"seed-{next(numbers)}",
                            service=service,
                            environment=environment,
                            version=version,
                            state=State.SUCCEEDED,
                            started_at=done,
                            finished_at=done,
                        )
                    )


def seeded_store(*, latency: float = 0.0, random: Random | None = None) -> InMemoryStore:
    """The store of the example, with three services that have been deployed before."""
    store = InMemoryStore(SEED, latency=latency, random=random)
    store.seed(SEED, datetime.now(UTC))
    return store
