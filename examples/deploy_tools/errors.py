"""Every way a deployment operation fails. Each says to its reader, an agent, what to do next."""

# ruff: noqa: N818 - each is named for what is the matter

from __future__ import annotations


class DeployError(Exception):
    """An operation that was refused or failed.

    Attributes:
        message: what is wrong.
        hint: the next step.
        retryable: the same call may succeed later.
    """

    retryable = False

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnknownService(DeployError):
    """There is no service of that name."""


class NeverDeployed(DeployError):
    """The service has no deployment in that environment."""


class NothingToRollBackTo(DeployError):
    """No earlier version ran in that environment."""


class DeployInProgress(DeployError):
    """Another deployment of the same service to the same environment has not ended."""

    retryable = True


class StoreUnavailable(DeployError):
    """The deployment store does not answer."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("The deployment store does not answer.", hint="Try again in a few seconds.")
