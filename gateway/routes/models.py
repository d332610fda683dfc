"""routes.yaml as values: what is behind the gateway, and who may call what, how often."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from gateway.likeness import LOOKS
from gateway.models import Kind, Limit, ToolPolicy
from gateway.routes.auth import Auth
from gateway.routes.backend import Backend
from gateway.routes.fields import (
    Count,
    Duration,
    Flag,
    MaybeCount,
    Model,
    Name,
    Pattern,
    Scopes,
    Size,
    Text,
    UriPattern,
    unique,
)
from gateway.routes.limits import Costs, LimitRule, charged, limits_of
from gateway.routes.pins import PinRules, Pins

_Redaction = Annotated[str, Field(pattern=r"^arguments(\.[^.\[\]\s]+|\[(\*|\d+)\])*$")]
_Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,48}$")]


class Defaults(Model):
    """What holds for every route that says nothing else."""

    timeout: Duration = Field(default=30.0, description="A call ends after this time without an answer or progress.")
    max_timeout: Duration = Field(default=300.0, description="A call ends after this time, progress or not.")
    max_concurrency: Count = Field(default=64, description="Calls at the backend at once, for each replica.")
    max_response: Size = Field(default=16 << 20, description="The largest answer that is accepted.")
    list_timeout: Duration = Field(default=3.0, description="Time for the backend's lists to be fetched.")
    pins: PinRules = Field(
        default=Pins(),
        description="What is new, or whose definition is not the one in `tools.lock`: `block` quarantines it, `warn` "
        "only tells. One word is for tools, prompts, resources and templates alike; a mapping tells them apart.",
    )
    refresh: Duration = Field(default=60.0, description="How often lists are fetched; notifications refresh at once.")


class ToolRule(Model):
    """What holds for the tools that its key names."""

    scopes: Scopes | None = Field(
        default=None, description="Scopes needed, all of them, in place of the route's. `[]` is public."
    )
    limits: tuple[LimitRule, ...] = Field(default=(), description="Limits in addition to the route's.")
    cost: Costs = Field(
        default={},
        description="What a call counts as in every limit that holds for it, or a mapping of names of limits to that, "
        "`*` for the others. Default: what the limit says.",
    )
    timeout: Duration | None = Field(default=None, description="In place of the route's.")
    max_timeout: Duration | None = Field(default=None, description="In place of the route's.")
    hidden: Flag = Field(default=False, description="`true`: neither listed nor callable.")


class Route(Model):
    """A backend and its tool rules, scopes and limits."""

    later: ClassVar[Mapping[str, str]] = {
        "request_state": "state of a request is sealed; remove the key",
        "expose_backend_info": "results name the gateway; remove the key",
    }

    name: Name = Field(description="Unique; lower-case letters, digits and hyphens, 40 at most.")
    description: str = Field(default="", description="For people: what is behind it.")
    backend: Backend = Field(description="The MCP server.")
    prefix: _Prefix = Field(
        default_factory=lambda data: f"{data['name']}__",
        description="What public names of its tools begin with. Default: `<name>__`.",
    )
    scopes: Scopes | None = Field(
        default=None,
        description="Scopes needed, all of them, for every tool that says nothing else. `[]` is public. "
        "Without it, only tools with scopes of their own are listed and callable.",
    )
    limits: tuple[LimitRule, ...] = Field(default=(), description="Limits in addition to the file's.")
    tools: dict[Pattern, ToolRule] = Field(
        default={},
        description="Rules by backend name or pattern (`*`, `?`): an exact name before patterns, "
        "then the first pattern that matches.",
    )
    prompts: dict[Pattern, ToolRule] = Field(
        default={}, description="The same for prompts, by backend name or pattern."
    )
    resources: dict[UriPattern, ToolRule] = Field(
        default={}, description="The same for resources and resource templates, by URI or pattern of URIs."
    )
    redact: tuple[_Redaction, ...] = Field(
        default=(), description="Paths whose values the audit leaves out, such as `arguments.password`."
    )
    timeout: Duration | None = Field(default=None, description="In place of `defaults.timeout`.")
    max_timeout: Duration | None = Field(default=None, description="In place of `defaults.max_timeout`.")
    max_concurrency: Count | None = Field(default=None, description="In place of `defaults.max_concurrency`.")
    max_response: Size | None = Field(default=None, description="In place of `defaults.max_response`.")
    list_timeout: Duration | None = Field(default=None, description="In place of `defaults.list_timeout`.")
    pins: PinRules | None = Field(default=None, description="In place of `defaults.pins`.")
    refresh: Duration | None = Field(default=None, description="In place of `defaults.refresh`.")
    describe_limits: Flag | None = Field(default=None, description="In place of the file's `describe_limits`.")

    _defaults: Defaults = PrivateAttr(default=Defaults())
    _file_limits: tuple[Limit, ...] = PrivateAttr(default=())
    _principal_concurrency: int | None = PrivateAttr(default=None)
    _describe_limits: bool = PrivateAttr(default=False)
    _policies: dict[tuple[str, str], ToolPolicy] = PrivateAttr(default_factory=dict)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._policies = {}
        return copied

    @property
    def effective(self) -> Defaults:
        """The route's own values over the file's."""
        own = {name: getattr(self, name) for name in Defaults.model_fields}
        return self._defaults.model_copy(update={name: value for name, value in own.items() if value is not None})

    def rules_for(self, kind: Kind) -> Mapping[str, ToolRule]:
        """The rules for entries of a kind, by backend name, URI or pattern. Templates have those of resources."""
        rules: Mapping[str, ToolRule] = getattr(self, _SECTIONS[kind])
        return rules

    def names(self, name: str, kind: Kind = "tool") -> bool:
        """Whether a rule of its own holds for an entry, by its backend name or URI."""
        return _rule_of(self.rules_for(kind), name) is not None

    def policy_for(self, name: str, kind: Kind = "tool") -> ToolPolicy:
        """What holds for an entry, by its backend name or URI. Kept, so that asking again is cheap."""
        section = _SECTIONS[kind]
        if (policy := self._policies.get((section, name))) is None:
            policy = self._policies[section, name] = self.decide(name, kind)
        return policy

    def rule_of_likeness(self, name: str, kind: Kind = "tool") -> str | None:
        """The name or pattern of a rule that holds for names that look like this one, and not for this one itself."""
        return _rule_of_likeness(self.rules_for(kind), name)

    def within(
        self, defaults: Defaults, limits: tuple[Limit, ...], principal_concurrency: int | None, *, describe_limits: bool
    ) -> None:
        """Told once, by the file it stands in: what it inherits."""
        self._defaults, self._file_limits = defaults, limits
        self._principal_concurrency, self._describe_limits = principal_concurrency, describe_limits
        self._policies.clear()

    def decide(self, name: str, kind: Kind = "tool") -> ToolPolicy:
        """The same, not kept: for names that callers choose."""
        section, rules = _SECTIONS[kind], self.rules_for(kind)
        key = _rule_of(rules, name)
        rule = rules[key] if key is not None else ToolRule()
        path, rule_path = f"routes.{self.name}", f"routes.{self.name}.{section}.{key}"
        scopes = self.scopes if rule.scopes is None else rule.scopes
        decided_by = f"{path}.scopes" if scopes is not None else path
        if rule.hidden:
            decided_by = f"{rule_path}.hidden"
        elif rule.scopes is not None:
            decided_by = f"{rule_path}.scopes"
        effective = self.effective
        return ToolPolicy(
            scopes=None if scopes is None else frozenset(scopes),
            rule=decided_by,
            limits=self.limits_for(rule, rule_path),
            timeout=rule.timeout or effective.timeout,
            max_timeout=rule.max_timeout or effective.max_timeout,
            hidden=rule.hidden,
            principal_concurrency=self._principal_concurrency,
            described=self._describe_limits if self.describe_limits is None else self.describe_limits,
        )

    def limits_for(self, rule: ToolRule, rule_path: str) -> tuple[Limit, ...]:
        """Every limit that holds for what a rule of this route names: the file's, the route's, the rule's."""
        own = limits_of(self.limits, f"routes.{self.name}.limits") + limits_of(rule.limits, f"{rule_path}.limits")
        return charged(self._file_limits + own, rule.cost)


_SECTIONS: Mapping[Kind, str] = {"tool": "tools", "prompt": "prompts", "resource": "resources", "template": "resources"}


def _rule_of_likeness(rules: Mapping[str, ToolRule], name: str) -> str | None:
    """A rule that is meant for a name that looks like this one, where it is not the rule of this name itself."""
    own = _rule_of(rules, name)
    if own == name:
        return None
    for look in LOOKS:
        folded = {look(key): key for key in reversed(list(rules))}
        meant = _rule_of(folded, look(name))
        if meant is not None and folded[meant] != own:
            return folded[meant]
    return None


def _rule_of(rules: Mapping[str, object], name: str) -> str | None:
    if name in rules:
        return name
    return next((pattern for pattern in rules if fnmatchcase(name, pattern)), None)


class Toolset(Model):
    """A selection of routes and tools with its own URL, `/mcp/<name>`."""

    routes: Annotated[tuple[Text, ...], AfterValidator(unique)] = Field(
        min_length=1, description="Names of the routes it is made of."
    )
    tools: Annotated[tuple[Pattern, ...], AfterValidator(unique)] = Field(
        default=("*",), min_length=1, description="Patterns on public names, prefix included. Default: all tools."
    )
    names: Literal["prefixed", "plain"] = Field(
        default="prefixed", description="`plain`: names as the backend has them; for exactly one route."
    )

    @model_validator(mode="after")
    def _plain_is_one_route(self) -> Toolset:
        if self.names == "plain" and len(self.routes) != 1:
            raise ValueError("has plain names, which need exactly one route", "name one route, or use prefixed names")
        return self


class Routes(Model):
    """The whole file."""

    auth: Auth | None = Field(
        default=None, description="Who may call. Without it, the gateway starts on loopback addresses only."
    )
    limits: tuple[LimitRule, ...] = Field(default=(), description="Limits of every tool.")
    defaults: Defaults = Field(default=Defaults(), description="Values of every route that has none of its own.")
    routes: tuple[Route, ...] = Field(min_length=1, max_length=500, description="The backends, in order of listing.")
    toolsets: dict[Name, Toolset] = Field(default={}, description="Selections with a URL of their own: `/mcp/<name>`.")
    refusals: Literal["tool_result", "http"] = Field(
        default="tool_result",
        description="How refusals that an agent can act on are said: as tool results, or as HTTP 429 and 503.",
    )
    hide_unpermitted: Flag = Field(
        default=False, description="`true`: a tool without permission is answered like one that does not exist."
    )
    audit_arguments: Literal["full", "digest", "none"] = Field(
        default="full", description="What the audit keeps of arguments; `full` is redacted and bounded."
    )
    audit_results: Literal["size", "digest", "none"] = Field(
        default="size", description="What the audit keeps of results; `digest` is their size and a keyed digest."
    )
    describe_limits: Flag = Field(
        default=False, description="`true`: descriptions of tools end with the scopes and limits that hold for them."
    )
    tell_limits: Flag = Field(
        default=False,
        description="`true`: results say what the tightest limit left, in `RateLimit` headers and in `_meta`.",
    )
    principal_concurrency: MaybeCount = Field(
        default=32,
        description="Calls of one principal under way at once in each process; more wait for a second. `off`: any.",
    )

    @property
    def exchange_tokens(self) -> bool:
        """Whether a route gets tokens in exchange for those of clients."""
        found = (route.backend.credentials for route in self.routes)
        return any(one is not None and one.token_exchange is not None for one in found)

    def scopes(self, toolset: str | None = None) -> frozenset[str]:
        """Every scope that something of a toolset may need, whether its backend was reached yet or not."""
        chosen = self.toolsets[toolset].routes if toolset is not None else [route.name for route in self.routes]
        named: set[str] = set()
        for route in self.routes:
            if route.name in chosen:
                named.update(route.scopes or ())
                for rules in (route.tools, route.prompts, route.resources):
                    named.update(scope for rule in rules.values() for scope in rule.scopes or ())
        return frozenset(named)

    def opening_urls(self) -> frozenset[str]:
        """The routes whose backends may ask people to open URLs: where it can be told whose they are, or it is said."""
        alone = self.auth is None
        return frozenset(route.name for route in self.routes if route.backend.may_open_urls(alone=alone))

    def initial_scopes(self, toolset: str | None = None) -> frozenset[str]:
        """What a client of a toolset is told to ask for at first: of the configured ones, those that open something."""
        scopes, auth = self.scopes(toolset), self.auth
        if auth is None or auth.initial_scopes is None:
            return scopes
        return frozenset(scope for scope in auth.initial_scopes if auth.expand(frozenset({scope})) & scopes)

    @model_validator(mode="after")
    def _inherit(self) -> Routes:
        limits = limits_of(self.limits, "limits")
        for route in self.routes:
            route.within(self.defaults, limits, self.principal_concurrency, describe_limits=self.describe_limits)
        return self
