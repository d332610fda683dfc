"""The values of this server. Inputs are annotated types, so that agents see flat schemas; outputs are models."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema


class Environment(StrEnum):
    """Where a service runs."""

    DEV = "dev"
    STAGING = "staging"
    PRODUCTION = "production"


class State(StrEnum):
    """How far a deployment is."""

    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


def _inline(values: type[StrEnum]) -> dict[str, Any]:
    """The schema of an enum in place: many agents read a ``$ref`` badly."""
    return {"type": "string", "enum": [value.value for value in values]}


EnvironmentName = Annotated[Environment, WithJsonSchema(_inline(Environment))]
StateName = Annotated[State, WithJsonSchema(_inline(State))]
ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", examples=["checkout"])]
Version = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$",
        max_length=64,
        examples=["2.4.1"],
    ),
]
Reason = Annotated[str, Field(min_length=3, max_length=500)]


class Deployment(BaseModel):
    """One version of one service on its way to, or in, one environment. Times are UTC."""

    model_config = ConfigDict(frozen=True)

    id: str
    service: ServiceName
    environment: EnvironmentName
    version: Version
    state: StateName
    started_at: datetime
    finished_at: datetime | None = None
    rolled_back_from: Version | None = Field(None, description="The version this one replaced by a rollback")
    reason: str | None = Field(None, description="Why it was rolled back")


class DeployStatus(BaseModel):
    """What runs now, and the latest deployment, which may still be in progress or have failed."""

    service: ServiceName
    environment: EnvironmentName
    running: Version | None
    latest: Deployment


class RunningVersion(BaseModel):
    """The version of a service that runs in an environment."""

    service: ServiceName
    environment: EnvironmentName
    version: Version


class ServiceList(BaseModel):
    """All services there are, and what of them runs where."""

    services: list[ServiceName]
    running: list[RunningVersion]
