"""What no single entry of routes.yaml can know: names, prefixes and toolsets that have to fit together.

The first checks read plain values, so that they speak also where the models already found errors; whatever has not the
shape they look for is the models' to report. The last one needs the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.likeness import LOOKS
from gateway.models import Limit
from gateway.routes.document import Location
from gateway.routes.limits import EVERY, short_name
from gateway.routes.models import Routes, ToolRule
from gateway.routes.references import NEVER_INLINE, is_plain_secret
from gateway.routes.units import format_duration

Finding = tuple[Location, str, str]
"""Where, what, and a hint."""

SECTIONS = ("tools", "prompts", "resources")
"""Where a route has rules."""

_Named = tuple[int, str, str]
"""Index, name and prefix of a route."""


def of_values(data: dict[str, Any]) -> Iterator[Finding]:
    """The checks that need no model."""
    named = list(_named(data))
    yield from _names(named)
    yield from _prefixes(named)
    yield from _toolsets(data, named)
    yield from _limit_names(data)
    yield from _plain_secrets(data)


def of_models(routes: Routes) -> Iterator[Finding]:
    """A timeout is not longer than the end that holds for it, wherever the two are written; costs fit their limits;
    whoever has a token of their own is known; scopes that clients are told to ask for open something.
    """
    initial = routes.auth.initial_scopes if routes.auth is not None else None
    for index, scope in enumerate(initial or ()):
        if scope not in routes.initial_scopes():
            yield ("auth", "initial_scopes", index), f"no rule needs '{scope}'", "name scopes of routes or tools"
    for index, route in enumerate(routes.routes):
        credentials = route.backend.credentials
        if credentials is not None and credentials.per_principal and routes.auth is None:
            where = ("routes", index, "backend", "credentials")
            yield where, "needs auth:, because without it everybody is the same principal", "add auth:"
        effective = route.effective
        if effective.timeout > effective.max_timeout:
            yield _too_long(("routes", index), effective.timeout, effective.max_timeout)
        for key, rule in route.tools.items():
            timeout, end = rule.timeout or effective.timeout, rule.max_timeout or effective.max_timeout
            if timeout > end and (rule.timeout or rule.max_timeout):
                yield _too_long(("routes", index, "tools", key), timeout, end)
        for section in SECTIONS:
            for key, rule in getattr(route, section).items():
                limits = route.limits_for(rule, f"routes.{route.name}.{section}.{key}")
                yield from _costs(("routes", index, section, key, "cost"), rule, limits)


def _costs(location: Location, rule: ToolRule, limits: tuple[Limit, ...]) -> Iterator[Finding]:
    """A cost is of a rate that holds for the tool, and within its burst."""
    rates = {short_name(limit): limit for limit in limits if not limit.concurrent}
    for name in rule.cost:
        if name != EVERY and name not in rates:
            known = ", ".join(one for one in rates if "[" not in one)
            yield location, f"no rate limit named '{name}' holds here", f"named are {known}" if known else "name it"
    for limit in limits:
        if limit.cost > limit.burst and not limit.concurrent and rule.cost:
            message = f"a cost of {limit.cost} is over the burst of {limit.name}, so no call would ever pass"
            yield location, message, f"lower it to {limit.burst}, or raise burst"


def _too_long(location: Location, timeout: float, end: float) -> Finding:
    message = f"timeout {format_duration(timeout)} is longer than max_timeout {format_duration(end)}"
    return location, message, "raise max_timeout, or lower timeout"


def _entries(data: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    found = data.get(key)
    if isinstance(found, list):
        yield from ((index, one) for index, one in enumerate(found) if isinstance(one, dict))


def _items(data: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = data.get(key)
    if isinstance(found, dict):
        yield from ((name, one) for name, one in found.items() if isinstance(one, dict))


def _texts(value: object) -> Iterator[tuple[int, str]]:
    if isinstance(value, list):
        yield from ((index, one) for index, one in enumerate(value) if isinstance(one, str))


def _named(data: dict[str, Any]) -> Iterator[_Named]:
    for index, route in _entries(data, "routes"):
        name = route.get("name")
        prefix = route.get("prefix", f"{name}__")
        if isinstance(name, str) and isinstance(prefix, str):
            yield index, name, prefix


def _names(named: list[_Named]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, name, _prefix in named:
        if first.setdefault(name, index) != index:
            yield ("routes", index, "name"), f"'{name}' is the name of routes[{first[name]}] too", "choose another name"


_FOLDS: tuple[tuple[Callable[[str], str], str], ...] = (
    (str, "begins with"),
    *((look, "looks as if it began with") for look in LOOKS),
)


def _prefixes(named: list[_Named]) -> Iterator[Finding]:
    """Two routes can give one public name exactly when one prefix begins with the other; and names that look alike."""
    told: set[tuple[str, str]] = set()
    for fold, likeness in _FOLDS:
        root: _Named | None = None
        for route in sorted(named, key=lambda one: (fold(one[2]), one[0])):
            if root is None or not fold(route[2]).startswith(fold(root[2])):
                root = route
            elif route[1] != root[1] and (root[1], route[1]) not in told:
                told |= {(root[1], route[1]), (route[1], root[1])}
                yield (
                    ("routes", max(root[0], route[0]), "prefix"),
                    f"public names of routes '{root[1]}' and '{route[1]}' can collide: "
                    f"'{route[2]}' {likeness} '{root[2]}'",
                    "set prefix: so that neither begins with the other",
                )


def _toolsets(data: dict[str, Any], named: list[_Named]) -> Iterator[Finding]:
    known = {name: prefix for _index, name, prefix in named}
    for key, toolset in _items(data, "toolsets"):
        chosen = [(index, name) for index, name in _texts(toolset.get("routes"))]
        for index, name in chosen:
            if name not in known:
                hint = f"routes are {', '.join(known)}" if known else "there are no routes"
                yield ("toolsets", key, "routes", index), f"there is no route '{name}'", hint
        prefixes = [known[name] for _index, name in chosen if name in known]
        if len(prefixes) < len(chosen):
            continue
        for index, pattern in _texts(toolset.get("tools")):
            head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
            if not any(_may_match(pattern, head, prefix) for prefix in prefixes):
                hint = f"public names begin with {' or '.join(prefixes)}"
                yield ("toolsets", key, "tools", index), f"'{pattern}' matches no tool of its routes", hint


def _may_match(pattern: str, head: str, prefix: str) -> bool:
    return head.startswith(prefix) or (head != pattern and prefix.startswith(head))


def _limit_lists(data: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    yield (), data
    for index, route in _entries(data, "routes"):
        yield ("routes", index), route
        for section in SECTIONS:
            for key, rule in _items(route, section):
                yield ("routes", index, section, key), rule


def _limit_names(data: dict[str, Any]) -> Iterator[Finding]:
    for location, holder in _limit_lists(data):
        seen: set[str] = set()
        for index, rule in _entries(holder, "limits"):
            name = rule.get("name")
            if isinstance(name, str) and name in seen:
                yield (*location, "limits", index, "name"), f"'{name}' names two limits", "they would share their count"
            elif isinstance(name, str):
                seen.add(name)


def _plain_secrets(data: dict[str, Any]) -> Iterator[Finding]:
    for index, route in _entries(data, "routes"):
        backend = route.get("backend")
        env = backend.get("env") if isinstance(backend, dict) else None
        for name, value in env.items() if isinstance(env, dict) else ():
            if isinstance(value, str) and is_plain_secret(name, value):
                yield (("routes", index, "backend", "env", name), *NEVER_INLINE)
