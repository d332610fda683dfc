"""``backend:`` of a route: where its MCP server is, and how it is spoken to."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.routes.credentials import Credentials
from gateway.routes.fields import Era, Flag, HttpUrl, Model, Text, Word
from gateway.routes.references import Variable

_LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
_MODERN_REVISIONS = ("2026-07-28",)


def _variable_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("is not the name of an environment variable", "letters, digits and underscores")
    return name


def _era(value: object) -> object:
    if value in _MODERN_REVISIONS:
        return "modern"
    return "legacy" if value in _LEGACY_REVISIONS else value


def _session(data: dict[str, Any]) -> Literal["shared", "principal", "client"]:
    return "shared" if data.get("command") else "principal"


class Backend(Model):
    """One MCP server behind us: exactly one of `url` and `command`."""

    url: HttpUrl | None = Field(default=None, description="Its MCP endpoint. `${NAME}` is replaced.")
    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="Program and arguments of a stdio server, started by the gateway; no shell."
    )
    env: dict[Annotated[str, AfterValidator(_variable_name)], Variable] = Field(
        default={},
        repr=False,
        exclude=True,
        description="Environment of the program: plain values, and secrets by reference.",
    )
    cwd: Text | None = Field(default=None, description="Working directory of the program. Default: the gateway's.")
    transport: Literal["auto", "streamable_http", "sse", "stdio"] = Field(
        default="auto",
        description="`auto`: stdio for `command`; for `url` streamable HTTP, and where that is refused `sse`, the "
        "transport of 2024-11-05.",
    )
    era: Annotated[Era, BeforeValidator(_era), Word("`auto`, `modern`, `legacy` or a revision")] = Field(
        default="auto",
        description="Protocol era; `auto` finds out. A revision stands for its era: `2026-07-28` is modern.",
    )
    session: Literal["shared", "principal", "client"] = Field(
        default_factory=_session,
        description="Who shares a session of a legacy backend. Default: `principal` for `url`, `shared` for `command`.",
    )
    credentials: Credentials | None = Field(default=None, description="What we show the backend. Default: nothing.")
    allow_link_local: Flag = Field(
        default=False,
        description="`true`: it may be at a link-local address, or where a cloud keeps credentials of its machines.",
    )
    url_elicitation: Flag | None = Field(
        default=None,
        description="The backend may ask people to open a URL (elicitation of mode `url`). It has to find out that who "
        "opens it is who called, and what everybody shares does not tell. Default: `true` without `auth`, where "
        "there is one person, and with credentials of each principal, else `false`.",
    )
    trust_annotations: Flag = Field(
        default=False, description="Policy may rely on `readOnlyHint` and `idempotentHint` of its tools."
    )

    def may_open_urls(self, *, alone: bool) -> bool:
        """Whether it may ask people to open a URL; ``alone``: there is only one person."""
        if self.url_elicitation is not None:
            return self.url_elicitation
        return alone or (self.credentials is not None and self.credentials.per_principal)

    @model_validator(mode="after")
    def _consistent(self) -> Backend:
        if (self.url is None) == (self.command is None):
            raise ValueError("needs exactly one of url and command", "url: for HTTP, command: for stdio")
        if self.url is not None and (self.env or self.cwd or self.transport == "stdio"):
            raise ValueError("has a url, so env, cwd and transport stdio do not apply", "they go with command:")
        if self.command is not None and (
            self.credentials or self.transport in ("streamable_http", "sse") or self.allow_link_local
        ):
            raise ValueError(
                "has a command, so credentials, allow_link_local and the transports of HTTP do not apply",
                "give a program its secrets with env:",
            )
        if self.credentials and self.credentials.per_principal and self.session == "shared":
            raise ValueError(
                "has credentials of each principal, so a session cannot be shared", "set session: principal, or client"
            )
        if self.transport == "sse" and self.era == "modern":
            raise ValueError("has transport sse, which no modern server speaks", "set era: legacy, or remove it")
        return self
