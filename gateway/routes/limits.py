"""Limits as routes.yaml writes them, and what a call costs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.models import Limit, LimitKey
from gateway.routes.fields import Count, Duration, Flag, Model, Name, listed, unique

EVERY = "*"
"""Stands for every limit in ``Costs``."""

_LONGEST_RECOVERY = 100 * 365.25 * 86_400
"""Seconds. In microseconds a double still counts ten times as many exactly, which the script of Redis needs."""


def _of_every(value: object) -> object:
    return value if isinstance(value, dict) else {EVERY: value}


_CostKey = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,39})$")]
Costs = Annotated[
    dict[_CostKey, Count], BeforeValidator(_of_every, json_schema_input_type=int | dict[str, int]), Field(min_length=1)
]
"""What a call counts as, by the name of the limit, ``*`` for all that are not named. A number stands for all."""


class LimitRule(Model):
    """At most so many calls in a time, as a steady rate (GCRA), or so many at once (`concurrency`)."""

    name: Name | None = Field(default=None, description="Name in metrics and refusals. Default: its place in the file.")
    per: Annotated[
        tuple[LimitKey, ...],
        Field(min_length=1),
        BeforeValidator(listed, json_schema_input_type=LimitKey | list[LimitKey]),
        AfterValidator(unique),
    ] = Field(description="What is counted apart: one, or a list whose combination counts.")
    limit: Count | None = Field(default=None, description="Calls in each `window`; 1 or more.")
    window: Duration | None = Field(default=None, description="The time in which `limit` calls may be made.")
    burst: Count | None = Field(
        default_factory=lambda data: data.get("limit"), description="Calls that may be made at once. Default: `limit`."
    )
    concurrency: Count | None = Field(
        default=None, description="Calls that may run at the same time, in place of `limit`, `window` and `burst`."
    )
    cost: Count = Field(default=1, description="What a call counts as in this limit, unless its tool says.")
    enforce: Flag = Field(
        default=True, description="`false`: the limit decides and counts in metrics and audit, and refuses nobody."
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> LimitRule:
        rate = {"limit", "window", "burst", "cost"} & self.model_fields_set
        if self.concurrency is not None:
            if rate:
                raise ValueError(f"has concurrency, so {', '.join(sorted(rate))} does not apply", "make it two limits")
            return self
        if self.limit is None or self.window is None or self.burst is None:
            missing = "window" if self.limit is not None else "limit"
            raise ValueError(f"{missing} is required", "a limit has limit: and window:, or concurrency:")
        if self.burst * self.window / self.limit > _LONGEST_RECOVERY:
            raise ValueError("takes over a hundred years to recover from its burst", "lower burst, or window")
        if self.cost > self.burst:
            raise ValueError("has a cost over its burst, so no call would ever pass", "lower cost, or raise burst")
        return self

    def to_limit(self, name: str) -> Limit:
        """The limit under its full name, such as ``limits.everyone`` or ``routes.deploy.limits[0]``."""
        if self.concurrency is not None:
            places = self.concurrency
            return Limit(name, self.per, places, 0.0, places, enforce=self.enforce, concurrent=True)
        return Limit(name, self.per, self.limit or 0, self.window or 0.0, self.burst or 0, self.cost, self.enforce)


def limits_of(rules: Sequence[LimitRule], path: str) -> tuple[Limit, ...]:
    """The limits of one list at this path of the file."""
    return tuple(
        rule.to_limit(f"{path}.{rule.name}" if rule.name else f"{path}[{index}]") for index, rule in enumerate(rules)
    )


def charged(limits: tuple[Limit, ...], costs: Mapping[str, int]) -> tuple[Limit, ...]:
    """The same limits as they charge a tool that costs so much."""
    if not costs:
        return limits
    return tuple(
        limit if limit.concurrent else replace(limit, cost=costs.get(short_name(limit), costs.get(EVERY, limit.cost)))
        for limit in limits
    )


def short_name(limit: Limit) -> str:
    """What its rule is called; nothing that could be a name where it has none."""
    return limit.name.rpartition("limits.")[2]
