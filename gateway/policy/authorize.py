"""May this principal use this tool? One predicate answers for lists and for calls."""

from __future__ import annotations

from gateway.errors import InsufficientScope, UnknownTool
from gateway.models import Call, Entry, Principal


def permits(principal: Principal, tool: Entry) -> bool:
    """Whether ``principal`` may see and call ``tool``: a rule names it, and the token has every scope of that rule."""
    policy = tool.policy
    return policy.scopes is not None and not policy.hidden and policy.scopes <= principal.scopes


def authorize(call: Call) -> None:
    """Refuse what ``permits`` does not.

    Raises:
        InsufficientScope, UnknownTool: see ``refusal``.
    """
    if not permits(call.principal, call.entry):
        raise refusal(call.principal, call.entry)


def refusal(principal: Principal, tool: Entry) -> InsufficientScope | UnknownTool:
    """What is said where ``permits`` is false.

    ``InsufficientScope``: the token lacks scopes; names all that the call needs (MCP authorization, scope challenge).
    ``UnknownTool``: no rule names the tool, or it is hidden.
    """
    policy = tool.policy
    if policy.scopes is None or policy.hidden:
        return UnknownTool(f"Unknown tool: {tool.name}", rule=policy.rule)
    missing = policy.scopes - principal.scopes
    return InsufficientScope(
        f"This call needs the scopes {_listed(policy.scopes)}; the token lacks {_listed(missing)}.",
        needed=policy.scopes,
        missing=missing,
        rule=policy.rule,
    )


def _listed(scopes: frozenset[str]) -> str:
    return ", ".join(sorted(scopes))
