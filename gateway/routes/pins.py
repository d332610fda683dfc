"""``pins:`` of routes.yaml: what happens to definitions that nobody approved."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.models import Kind
from gateway.routes.fields import Model

PinRule = Literal["off", "warn", "block"]


class Pins(Model):
    """Pins for each kind of definition by itself, in place of one word for all."""

    tools: PinRule = Field(default="off", description="For tools.")
    prompts: PinRule = Field(default="off", description="For prompts.")
    resources: PinRule = Field(
        default="off", description="For the resources that are listed; `off` where that list keeps changing."
    )
    templates: PinRule = Field(
        default_factory=lambda data: data.get("resources", "off"),
        description="For resource templates. Default: as `resources`.",
    )

    @property
    def any(self) -> bool:
        """Whether anything is compared with the lock."""
        return any(rule != "off" for rule in (self.tools, self.prompts, self.resources, self.templates))

    def approves(self, kind: Kind) -> bool:
        """Whether entries of a kind belong into the lock: those that are compared, and all where nothing is yet."""
        return self.of(kind) != "off" or not self.any

    def of(self, kind: Kind) -> PinRule:
        """The rule for entries of a kind."""
        rule: PinRule = getattr(self, f"{kind}s")
        return rule


def _of_all(value: Any) -> Any:
    return dict.fromkeys(("tools", "prompts", "resources", "templates"), value) if isinstance(value, str) else value


PinRules = Annotated[Pins, BeforeValidator(_of_all, json_schema_input_type=PinRule | Pins)]
"""A word for every kind, or a mapping."""
