"""Every way the gateway says no.

A check raises one of these; ``protocol/answers.py`` is the one place that turns it into the wire. What an agent can act
on is said as a tool result, what the client's software must act on as an HTTP status with a JSON-RPC error.

``code`` is the JSON-RPC error code. The codes of JSON-RPC and MCP are used where their meaning is exactly that;
our own are the HTTP status as a positive number, outside the reserved range (specification, ``basic/index``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022


class Refusal(Exception):  # noqa: N818 - the field's word for a deliberate no
    """A deliberate no.

    Attributes:
        message: what went wrong and what to do, for the agent. Never a secret, a host name or an argument.
        outcome: the word for it in audit, metrics and logs.
        status: the HTTP status where it is said as an error.
        code: the JSON-RPC error code where it is said as an error.
        as_tool_result: said as an ``isError`` tool result when it answers ``tools/call``.
        retryable: the same call may succeed later.
        dispatched: the call had left for the backend.
        retry_after: seconds, exact, or None.
        hint: one more sentence: the next step.
        data: further fields for ``error.data``.
        rule: what decided, for the audit: a path in ``routes.yaml``, a setting, or the check. Empty where what allowed
            the call stays on record.
    """

    outcome: ClassVar[str]
    rule: str = ""
    status: int = 400
    code: int = INVALID_REQUEST
    as_tool_result: ClassVar[bool] = False
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retry_after: float | None = None,
        dispatched: bool = False,
        data: Mapping[str, Any] | None = None,
        rule: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.dispatched = dispatched
        self.data = dict(data or {})
        if rule:
            self.rule = rule


class Unauthenticated(Refusal):
    """No token, or one that is not accepted. ``reason`` is for the audit, never for the caller's log parsing."""

    outcome = "unauthenticated"
    status = 401
    code = 401

    def __init__(self, message: str, *, token_presented: bool, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint, rule=f"auth.{reason}" if reason else "auth")
        self.token_presented = token_presented
        self.reason = reason


class IssuerUnavailable(Refusal):
    """The issuer's keys were never had, or it cannot be asked: its token cannot be judged."""

    outcome = "unauthenticated"
    rule = "auth.issuer_unavailable"
    status = 503
    code = 503
    retryable = True


class InsufficientScope(Refusal):
    """The token lacks scopes. ``needed`` names all that the operation needs, in one challenge."""

    outcome = "insufficient_scope"
    status = 403
    code = 403

    def __init__(self, message: str, *, needed: frozenset[str], missing: frozenset[str], rule: str) -> None:
        super().__init__(
            message,
            hint="Ask the authorization server for a token with all of them.",
            data={"scopes_needed": sorted(needed), "scopes_missing": sorted(missing)},
            rule=rule,
        )
        self.needed = needed


class Forbidden(Refusal):
    """A Host or Origin that is not allowed, or another principal's session."""

    outcome = "invalid_request"
    rule = "guard.origin"
    status = 403
    code = 403


_RULES_OF_CODES: Mapping[int, str] = {
    PARSE_ERROR: "protocol.json",
    INVALID_REQUEST: "protocol.message",
    INVALID_PARAMS: "protocol.params",
    HEADER_MISMATCH: "protocol.headers",
    UNSUPPORTED_VERSION: "protocol.version",
}


class InvalidRequest(Refusal):
    """Not a request this gateway can read. ``code``, ``status`` and ``rule`` are set by the one who knows them.

    Without a ``rule`` the code names it.
    """

    outcome = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        code: int = INVALID_REQUEST,
        status: int = 400,
        hint: str = "",
        data: Mapping[str, Any] | None = None,
        rule: str = "",
    ) -> None:
        super().__init__(message, hint=hint, data=data, rule=rule or _RULES_OF_CODES.get(code, "protocol"))
        self.code = code
        self.status = status


class UnknownSession(InvalidRequest):
    """A legacy session id that is not ours, has ended, expired or belongs to another principal (2025-11-25: 404)."""

    def __init__(self, message: str = "Unknown or ended session; send initialize again.") -> None:
        super().__init__(message, status=404, rule="session.unknown")


class UnknownMethod(Refusal):
    """404 in the modern era, 200 in the legacy one."""

    outcome = "unknown_method"
    rule = "protocol.method"
    status = 404
    code = METHOD_NOT_FOUND


class UnknownTool(Refusal):
    """No such tool in this toolset. A protocol error at HTTP 200 (specification, ``server/tools``)."""

    outcome = "unknown_tool"
    rule = "catalog"
    status = 200
    code = INVALID_PARAMS


class RateLimited(Refusal):
    """A limit is used up. ``limit_name`` is the configured name of the one that waits longest."""

    outcome = "rate_limited"
    status = 429
    code = 429
    as_tool_result = True
    retryable = True

    def __init__(self, message: str, *, limit_name: str, retry_after: float, rule: str, hint: str = "") -> None:
        super().__init__(message, retry_after=retry_after, rule=rule, hint=hint, data={"limit": limit_name})
        self.limit_name = limit_name


class InvalidArguments(Refusal):
    """The arguments break the tool's input schema. ``violations`` has each with its path."""

    outcome = "invalid_arguments"
    rule = "arguments.schema"
    status = 200
    code = INVALID_PARAMS
    as_tool_result = True

    def __init__(self, message: str, *, violations: list[dict[str, str]], hint: str = "") -> None:
        super().__init__(message, data={"violations": violations}, hint=hint)


class BackendUnavailable(Refusal):
    """Connect failed, breaker open, connection broken, or an answer that is not one."""

    outcome = "backend_unavailable"
    status = 503
    code = INTERNAL_ERROR
    as_tool_result = True

    def __init__(
        self,
        message: str,
        *,
        dispatched: bool,
        retryable: bool | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, dispatched=dispatched, retry_after=retry_after, hint=hint)
        self.retryable = not dispatched if retryable is None else retryable


class BackendTimeout(BackendUnavailable):
    """The backend did not answer in time; the call was cancelled."""

    outcome = "backend_timeout"


class BackendBusy(BackendUnavailable):
    """The bulkhead of the backend is full; the call was not sent."""

    outcome = "backend_busy"


class ClientSilent(BackendUnavailable):
    """A legacy client did not give what the backend asked for; what the backend did meanwhile is not known."""

    outcome = "client_silent"

    def __init__(self, message: str) -> None:
        super().__init__(message, dispatched=True, retryable=False)


class Quarantined(Refusal):
    """The definition is not the pinned one."""

    outcome = "quarantined"
    status = 503
    code = INTERNAL_ERROR
    as_tool_result = True


class Overloaded(Refusal):
    """Draining, or the audit cannot be written: nothing was executed."""

    outcome = "overloaded"
    rule = "overload"
    status = 503
    code = 503
    retryable = True


class AuditUnavailable(Overloaded):
    """The audit cannot be written, so nothing is executed."""


def outcomes(kind: type[Refusal] = Refusal) -> frozenset[str]:
    """Every word for how a request ends: those of what was carried out or broke off, and those of the refusals."""
    below = frozenset[str]().union(*(outcomes(each) for each in kind.__subclasses__()))
    return below | ({kind.outcome} if kind is not Refusal else _NO_REFUSALS)


_NO_REFUSALS = frozenset({"ok", "tool_error", "backend_error", "aborted", "internal_error"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the configuration, said to the operator.

    ``file`` is where (a file, or ``environment``), ``line`` counts from 1 or is None, ``path`` is the YAML path or the
    variable. ``hint`` is the next step. None of them ever holds the value of a secret.
    """

    file: str
    line: int | None
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return f"{text} (hint: {self.hint})" if self.hint else text


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` has everything that is wrong with it; ``str()`` is the report."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
