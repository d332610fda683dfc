"""The tools: names, schemas, annotations and words for agents. The work is in ``service.py``."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import Field

from .models import Deployment, DeployStatus, EnvironmentName, Reason, ServiceList, ServiceName, Version
from .service import Deployments
from .strict import StrictServer

READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
DESTROY = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

Service = Annotated[ServiceName, Field(description="Name of the service, as list_services gives it")]
Where = Annotated[EnvironmentName, Field(description="Environment")]
NewVersion = Annotated[Version, Field(description="Semantic version to deploy, without a leading v")]
Why = Annotated[Reason, Field(description="Why, for the people who read the record")]


def build_server(deployments: Deployments) -> StrictServer:
    """The MCP server over these deployments."""
    server = StrictServer(
        "deploy-tools",
        title="Deployments",
        version="1.0.0",
        instructions="Ask get_deploy_status before and after you change anything. Roll back rather than guess.",
    )
    _add_reading(server, deployments)
    _add_writing(server, deployments)
    return server


def _titled(annotations: ToolAnnotations, title: str) -> dict[str, Any]:
    return {"title": title, "annotations": annotations.model_copy(update={"title": title})}


def _add_reading(server: StrictServer, deployments: Deployments) -> None:
    @server.tool(**_titled(READ, "Deployment status"))
    async def get_deploy_status(service: Service, environment: Where) -> DeployStatus:
        """Which version of a service runs in an environment, and how its latest deployment went."""
        return await deployments.status(service, environment)

    @server.tool(**_titled(READ, "List services"))
    async def list_services(environment: Where | None = None) -> ServiceList:
        """All services and the versions that run, in one environment or in all."""
        return await deployments.list(environment)


def _add_writing(server: StrictServer, deployments: Deployments) -> None:
    @server.tool(**_titled(WRITE, "Start a deployment"))
    async def start_deploy(service: Service, version: NewVersion, environment: Where, ctx: Context) -> Deployment:
        """Deploy a version of a service and wait for the end. Reports its steps as progress."""
        return await deployments.deploy(service, version, environment, ctx.report_progress)

    @server.tool(**_titled(DESTROY, "Roll back"))
    async def rollback(service: Service, environment: Where, reason: Why, ctx: Context) -> Deployment:
        """Replace the running version of a service by the one that ran before. Traffic moves at once."""
        return await deployments.rollback(service, environment, reason, ctx.report_progress)
