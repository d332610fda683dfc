"""What the process is told, from the environment with the prefix ``DEPLOY_TOOLS_``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the process, read once."""

    model_config = SettingsConfigDict(env_prefix="DEPLOY_TOOLS_", frozen=True)

    latency_ms: Annotated[float, Field(ge=0, le=60_000, description="Mean time of a store operation")] = 40.0
    outage: Annotated[bool, Field(description="The store is away from the start")] = False
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    drain_seconds: Annotated[int, Field(ge=0, description="How long SIGTERM waits for running calls")] = 10
