"""What every connection to a backend has in common, and the words for its failures.

A message names the route and says what the agent may do next; it never holds a URL, a command or a cause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.errors import BackendBusy, BackendTimeout, BackendUnavailable
from gateway.models import BackendReply, BackendRequest, Era
from gateway.ports import Notify


@dataclass(frozen=True, slots=True)
class Offer:
    """What a backend says it has: its answer to ``server/discover`` or ``initialize``, and its lists."""

    tools: tuple[Mapping[str, Any], ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] | None = None
    prompts: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()


class Link(Protocol):
    """A way to one backend in the era it speaks."""

    @property
    def era(self) -> Era:
        """Which one."""
        ...

    def request(self, request: BackendRequest, notify: Notify) -> Awaitable[BackendReply]:
        """As ``ports.Backend.request``, once: a link never repeats what may have been executed."""
        ...

    async def offer(self, seconds: float) -> Offer:
        """Ask for everything the backend offers; once connected, within ``seconds``.

        Raises:
            BackendUnavailable: it could not be had, whatever the reason.
        """
        ...

    def watch(self, uris: frozenset[str]) -> None:
        """From now on, tell of changes of the backend's lists and of exactly these resources; returns at once.

        What is told goes to the callback that the link was made with. After a gap in which changes may have been
        missed, the lists count as changed.
        """
        ...

    async def aclose(self) -> None:
        """End all connections and processes. Idempotent."""
        ...


class ConnectionLost(BackendUnavailable):
    """A transport error, noticed at once. With ``dispatched`` false no byte of the request was sent."""


class AnswerTooLarge(BackendUnavailable):
    """There was an answer, over ``max_response``: the backend itself is well."""


class WrongEra(BackendUnavailable):
    """The backend answered as one of the other era: find out anew which one it speaks. Nothing was executed."""


class SessionEnded(BackendUnavailable):
    """The backend does not know the session (404): nothing was executed, a new session may repeat the request."""


class NoCredentials(BackendUnavailable):
    """There is no token to show the backend, so it was not asked; says nothing of the backend itself."""


class NotConnected(NoCredentials):
    """The principal has not granted the gateway anything at the backend's authorization server, or not any more."""


class HandshakeRefused(BackendUnavailable):
    """``initialize`` was answered with an HTTP error ``status``."""

    def __init__(self, route: str, status: int) -> None:
        super().__init__(_NOT_REACHABLE.format(route), dispatched=False)
        self.status = status


def unreachable(route: str, *, retry_after: float | None = None) -> BackendUnavailable:
    """Not sent, and it is not known when it could be."""
    return BackendUnavailable(_NOT_REACHABLE.format(route), dispatched=False, retry_after=retry_after)


def refused(route: str) -> ConnectionLost:
    """The connection could not be made: nothing was sent."""
    return ConnectionLost(_NOT_REACHABLE.format(route), dispatched=False)


def broken(route: str) -> ConnectionLost:
    """The connection ended after the request had left."""
    return ConnectionLost(
        f"The connection to the {route} backend broke; the call may have been executed.",
        dispatched=True,
        hint=_CHECK_FIRST,
    )


def unusable(route: str) -> BackendUnavailable:
    """There was an answer, but not one of MCP."""
    return BackendUnavailable(
        f"The {route} backend gave no usable answer; the call may have been executed.",
        dispatched=True,
        hint=_CHECK_FIRST,
    )


def too_large(route: str) -> AnswerTooLarge:
    """The answer exceeds ``max_response``."""
    return AnswerTooLarge(
        f"The answer of the {route} backend is too large; the call may have been executed.",
        dispatched=True,
        hint="Ask for less at once.",
    )


def not_admitted(route: str) -> BackendUnavailable:
    """The backend refused the gateway itself (401, 403); that is never relayed as the client's matter."""
    return BackendUnavailable(
        f"The {route} backend does not admit the gateway; nothing was executed.",
        dispatched=False,
        retryable=False,
        hint="Tell the operator of the gateway: its credentials for this backend are not accepted.",
    )


def no_token(route: str, *, retry_after: float | None = None) -> NoCredentials:
    """The authorization server could not be asked; that is tried again by itself."""
    return NoCredentials(
        f"The gateway cannot get a token for the {route} backend now; nothing was executed. Try again later.",
        dispatched=False,
        retry_after=retry_after,
    )


def token_refused(route: str) -> NoCredentials:
    """The authorization server gives the gateway no token."""
    return NoCredentials(
        f"The authorization server of the {route} backend gives the gateway no token; nothing was executed.",
        dispatched=False,
        retryable=False,
        hint="Tell the operator of the gateway: its client is refused there.",
    )


def principal_refused(route: str) -> NoCredentials:
    """The authorization server gives no token for this principal."""
    return NoCredentials(
        f"The {route} backend is not open to you: its authorization server gives no token for yours; "
        "nothing was executed.",
        dispatched=False,
        retryable=False,
        hint="Ask for access there, or sign in anew if your token is about to end.",
    )


def principal_not_admitted(route: str) -> NoCredentials:
    """The backend refused a principal's token (401, 403)."""
    return NoCredentials(
        f"The {route} backend does not admit you; nothing was executed.",
        dispatched=False,
        retryable=False,
        hint="Ask for access there.",
    )


def not_connected(route: str, hint: str = "") -> NotConnected:
    """The principal has to connect its account first."""
    return NotConnected(
        f"The {route} backend needs an account of yours, which is not connected; nothing was executed.",
        dispatched=False,
        retryable=False,
        hint=hint or "Connect it, then call again.",
    )


def late(route: str, seconds: float) -> BackendTimeout:
    """No answer within ``seconds``."""
    return BackendTimeout(
        f"The {route} backend did not answer within {seconds:.3g} s; the call was cancelled, but it may have run.",
        dispatched=True,
        hint=_CHECK_FIRST,
    )


def busy(route: str, *, retry_after: float = 1.0) -> BackendBusy:
    """No room for one more call or session."""
    return BackendBusy(
        f"The {route} backend is busy; nothing was executed. Try again later.",
        dispatched=False,
        retry_after=retry_after,
    )


def wrong_era(route: str) -> WrongEra:
    """See ``WrongEra``."""
    return WrongEra(_NOT_REACHABLE.format(route), dispatched=False)


def session_ended(route: str) -> SessionEnded:
    """See ``SessionEnded``."""
    return SessionEnded(_NOT_REACHABLE.format(route), dispatched=False)


_NOT_REACHABLE = "The {} backend is not reachable; nothing was executed. Try again later."
_CHECK_FIRST = "Check whether it was before you repeat it."
