"""How limits are told: in the RateLimit fields of HTTP, in ``_meta`` of a result, and in the description of a tool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.models import Limit, LimitState, ToolPolicy

Headers = tuple[tuple[str, str], ...]


def headers_of(limit: Limit, remaining: int, seconds: float | None) -> Headers:
    """``RateLimit-Policy`` and ``RateLimit`` of one limit (draft-ietf-httpapi-ratelimit-headers, RFC 9651 items).

    ``seconds`` until there is more, rounded up; None where nobody knows.
    """
    name = limit.name.replace("\\", "\\\\").replace('"', '\\"')
    scope = 'qu="concurrent-requests"' if limit.concurrent else f"w={math.ceil(limit.window)}"
    until = "" if seconds is None else f";t={math.ceil(seconds)}"
    return (("ratelimit-policy", f'"{name}";q={limit.limit};{scope}'), ("ratelimit", f'"{name}";r={remaining}{until}'))


def tightest(states: Sequence[LimitState]) -> LimitState | None:
    """The rate that leaves the fewest further calls, of several the one that takes longest to recover.

    None where there is none that is enforced. Places are not told: those of a call are free when its answer is read.
    """
    rates = [state for state in states if state.limit.enforce and not state.limit.concurrent]
    return min(rates, key=lambda state: (state.remaining // state.limit.cost, -state.reset), default=None)


def left_of(state: LimitState) -> dict[str, Any]:
    """What a program reads of a limit in ``_meta``: of ``quota`` per window, ``remaining`` can be used at once.

    A call of this tool takes ``cost``. ``reset_seconds`` until all of the burst is there again, to the millisecond.
    """
    limit = state.limit
    return {
        "limit": limit.name,
        "quota": limit.limit,
        "window_seconds": limit.window,
        "remaining": state.remaining,
        "cost": limit.cost,
        "reset_seconds": math.ceil(round(state.reset * 1000, 3)) / 1000,
    }


def described(definition: Mapping[str, Any], policy: ToolPolicy) -> Mapping[str, Any]:
    """A tool's definition whose description ends with the scopes and limits that hold for it."""
    sentences = [definition["description"]] if isinstance(definition.get("description"), str) else []
    if policy.scopes:
        word = "scope" if len(policy.scopes) == 1 else "scopes"
        sentences.append(f"Needs the {word} {' and '.join(sorted(policy.scopes))}.")
    limits = [_sentence(limit) for limit in policy.limits if limit.enforce]
    if limits:
        sentences.append(f"Limited to {'; '.join(limits)}.")
    return {**definition, "description": "\n".join(sentences)} if sentences else definition


_EACH: Mapping[str, str] = {
    "principal": "principal",
    "client": "client",
    "tool": "tool",
    "route": "backend",
    "toolset": "toolset",
}


def _sentence(limit: Limit) -> str:
    each = " and ".join(_EACH[name] for name in limit.per if name in _EACH)
    text = f"{limit.said} for {'each ' + each if each else 'all together'}"
    if not limit.concurrent and limit.burst < limit.limit:
        text += f", {limit.burst} of them at once"
    return f"{text}, a call counting as {limit.cost}" if limit.cost > 1 else text
