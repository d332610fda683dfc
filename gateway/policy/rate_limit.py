"""Is every limit of the tool still open for this caller?

A limit counts by what its ``per`` names; the order in which it names them does not matter. Identity is fixed before
this step, so a forged token costs nobody anything.
"""

from __future__ import annotations

from hashlib import blake2b

from gateway.errors import RateLimited
from gateway.models import Call, Limit
from gateway.ports import LimitStore, Meter, Take, Verdict

_CACHED_CALLERS = 10_000
_Caller = tuple[str, str, str | None, str, str, str, str | None]


class RateLimit:
    """The check. All limits of a call are decided in one step of ``store``; ``meter`` sees every verdict."""

    def __init__(self, store: LimitStore, meter: Meter) -> None:
        self._store = store
        self._meter = meter
        self._takes: dict[_Caller, tuple[tuple[Limit, ...], tuple[Take, ...]]] = {}

    async def __call__(self, call: Call) -> None:
        """Count the call.

        Raises:
            RateLimited: one of its limits is used up; none was charged.
            Overloaded: Redis is away and the policy for that is ``closed``.
        """
        if not call.entry.policy.limits:
            return
        takes = self._takes_of(call)
        verdict = await self._store.take(takes)
        self._meter.limits(takes, verdict)
        if verdict.refused is not None:
            raise _refusal(call, verdict.refused, verdict)
        grant = call.grant
        grant.left, grant.watching = verdict.left, verdict.watching
        if verdict.release is not None:
            grant.held += (verdict.release,)

    def _takes_of(self, call: Call) -> tuple[Take, ...]:
        """Hashing costs more than the rest of this step, so what was made for a caller and tool is kept."""
        principal, tool, limits = call.principal, call.entry, call.entry.policy.limits
        who = (principal.issuer, principal.subject, principal.client_id)
        caller = (*who, tool.route, tool.kind, tool.backend_name, call.toolset)
        known = self._takes.get(caller)
        if known is not None and known[0] is limits:
            return known[1]
        takes = tuple(Take(limit, key_of(limit, call)) for limit in limits)
        if len(self._takes) >= _CACHED_CALLERS:
            self._takes.clear()
        self._takes[caller] = (limits, takes)
        return takes


def key_of(limit: Limit, call: Call) -> str:
    """The counter that ``limit`` uses for this call: 32 hexadecimal digits.

    A hash of the length-prefixed parts, so that no choice of names makes two callers share a counter. A tool or prompt
    counts under its backend's name: it is one, whatever a toolset calls it. A resource counts under its entry in the
    catalogue: a template is one, whatever URIs a caller makes of it. Client ids are the issuer's own.
    """
    principal, entry = call.principal, call.entry
    parts = [limit.name, "concurrent"] if limit.concurrent else [limit.name]
    if "principal" in limit.per:
        parts += ["principal", principal.issuer, principal.subject]
    if "client" in limit.per:
        parts += ["client", principal.issuer, principal.client_id or ""]
    if "tool" in limit.per:
        name = entry.backend_name if entry.kind in ("tool", "prompt") else entry.name
        parts += [entry.kind, entry.route, name]
    if "route" in limit.per:
        parts += ["route", entry.route]
    if "toolset" in limit.per:
        parts += ["toolset", call.toolset or ""]
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return blake2b(b"".join(len(part).to_bytes(4) + part for part in encoded), digest_size=16).hexdigest()


def _refusal(call: Call, limit: Limit, verdict: Verdict) -> RateLimited:
    microseconds = round(verdict.retry_after * 1_000_000)
    wait = -(-microseconds // 1000) / 1000
    hint = "Nobody knows when a running call ends; call again when one of yours has." if limit.concurrent else ""
    return RateLimited(
        f"Rate limit {limit.name} ({limit.said}) is used up; "
        f"wait {wait} seconds before calling {call.entry.name} again.",
        limit_name=limit.name,
        retry_after=wait,
        rule=limit.name,
        hint=hint,
    )
