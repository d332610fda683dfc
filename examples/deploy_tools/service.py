"""What deploying means, without a word of MCP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import anyio

from .errors import NeverDeployed, NothingToRollBackTo, StoreUnavailable
from .models import Deployment, DeployStatus, Environment, RunningVersion, ServiceList, State
from .store import DeploymentStore

STEPS = ("pulling the image", "starting instances", "checking health", "moving traffic")

Progress = Callable[[int, int, str], Awaitable[None]]
"""Takes steps done, steps in all, and a word on what happens now."""


async def nobody(_done: int, _of: int, _message: str) -> None:
    """Progress that nobody asked for."""


def running(history: Iterable[Deployment]) -> Deployment | None:
    """What runs: the newest deployment that succeeded, of a history that has the newest first."""
    return next((entry for entry in history if entry.state is State.SUCCEEDED), None)


def previous(history: Sequence[Deployment]) -> Deployment | None:
    """What a rollback returns to, of a history that has the newest first.

    A deployment goes on top of what ran; a rollback takes it off again. So a second rollback goes one further back.
    """
    ran: list[Deployment] = []
    for entry in reversed(history):
        if entry.state is not State.SUCCEEDED:
            continue
        if entry.rolled_back_from is None:
            ran.append(entry)
        else:
            while ran and ran[-1].version != entry.version:
                ran.pop()
    return next((entry for entry in reversed(ran) if entry.version != ran[-1].version), None)


class Deployments:
    """The operations on deployments. All raise ``DeployError`` kinds and nothing else of their own."""

    def __init__(
        self,
        store: DeploymentStore,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:12],
    ) -> None:
        self._store = store
        self._now = now
        self._new_id = new_id

    async def status(self, service: str, environment: Environment) -> DeployStatus:
        """What runs and what was tried last.

        Raises:
            NeverDeployed: nothing was.
        """
        history = await self._history(service, environment)
        current = running(history)
        return DeployStatus(
            service=service,
            environment=environment,
            running=current.version if current else None,
            latest=history[0],
        )

    async def list(self, environment: Environment | None) -> ServiceList:
        """All services, and what runs of them in one environment or in all."""
        names = await self._store.services()
        where = [environment] if environment else list(Environment)
        found = [
            RunningVersion(service=name, environment=place, version=current.version)
            for name in names
            for place in where
            if (current := running(await self._store.history(name, place)))
        ]
        return ServiceList(services=list(names), running=found)

    async def deploy(
        self, service: str, version: str, environment: Environment, progress: Progress = nobody
    ) -> Deployment:
        """Bring a version into an environment, step by step.

        Raises:
            DeployInProgress: another one is on its way there.
        """
        return await self._roll_out(self._new(service, version, environment), progress)

    async def rollback(
        self, service: str, environment: Environment, reason: str, progress: Progress = nobody
    ) -> Deployment:
        """Bring back the version that ran before the one that runs.

        Raises:
            NothingToRollBackTo: no other version ran there.
            DeployInProgress: a deployment is on its way there.
        """
        history = await self._history(service, environment)
        current = running(history)
        target = previous(history)
        if current is None or target is None:
            raise NothingToRollBackTo(
                f"No earlier version of {service} ran in {environment}.",
                hint="Use start_deploy with the version you want.",
            )
        wanted = self._new(service, target.version, environment)
        return await self._roll_out(
            wanted.model_copy(update={"rolled_back_from": current.version, "reason": reason}), progress
        )

    async def _history(self, service: str, environment: Environment) -> Sequence[Deployment]:
        history = await self._store.history(service, environment)
        if not history:
            raise NeverDeployed(
                f"{service} was never deployed to {environment}.",
                hint="Call list_services to see where it runs.",
            )
        return history

    def _new(self, service: str, version: str, environment: Environment) -> Deployment:
        return Deployment(
            id=self._new_id(),
            service=service,
            environment=environment,
            version=version,
            state=State.IN_PROGRESS,
            started_at=self._now(),
        )

    async def _roll_out(self, deployment: Deployment, progress: Progress) -> Deployment:
        await self._store.add(deployment)
        async with self._failed_unless_done(deployment):
            for number, step in enumerate(STEPS):
                await progress(number, len(STEPS), step)
                await self._store.replace(deployment)
            done = deployment.model_copy(update={"state": State.SUCCEEDED, "finished_at": self._now()})
            await self._store.replace(done)
        await progress(len(STEPS), len(STEPS), "done")
        return done

    @asynccontextmanager
    async def _failed_unless_done(self, deployment: Deployment) -> AsyncIterator[None]:
        """Leave no deployment in progress behind, also when the caller hangs up.

        Where the store is away too, its lease ends the deployment.
        """
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                with anyio.CancelScope(shield=True), suppress(StoreUnavailable):
                    failed = {"state": State.FAILED, "finished_at": self._now()}
                    await self._store.replace(deployment.model_copy(update=failed))
