"""What is tried with the certified oidc-provider of ``examples/oidc-provider``."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.harness import free_port, until

from . import install
from .gateway import READ, SOON, WRITE, Behind, gateway
from .issuers import RESOURCE, Provider, Refused, oidc_provider, part_of

Run = Callable[[str, Callable[[], None]], None]


def run(folder: Path, deploy_url: str, check: Run) -> None:
    """Start everything and make the checks.

    Raises:
        Missing: Node.js or the package is not to be had.
    """
    node, script = install.provider()
    port, state = free_port(), folder / "provider"
    state.mkdir()
    auth = f"auth:\n{SOON}  resource: {RESOURCE}\n  issuers:\n    - issuer: http://127.0.0.1:{port}\n"
    with ExitStack() as running:
        first = running.enter_context(ExitStack())
        idp = first.enter_context(oidc_provider(node, script, state, port))
        front = running.enter_context(gateway(folder / "by-provider", auth, DEPLOY_URL=deploy_url))
        check("oidc-provider: a token for our resource calls what its scope allows", lambda: _scopes(idp, front))
        check("oidc-provider: no other resource is to be had", lambda: _resources(idp))
        old = idp.client_credentials("deploy:read")
        first.close()
        check("oidc-provider: tokens go on while it is away", lambda: _goes_on(front, old))
        again = running.enter_context(oidc_provider(node, script, state, port))
        check("oidc-provider: a key that changed with its restart is followed", lambda: _rotated(again, front, old))


def _scopes(idp: Provider, gateway: Behind) -> None:
    token = idp.client_credentials("deploy:read")
    assert part_of(token, 0)["typ"] == "at+jwt"
    assert gateway.takes(token, READ)
    assert gateway.call(token, WRITE).status_code == 403
    assert gateway.takes(idp.client_credentials("deploy:read deploy:write"), WRITE)


def _resources(idp: Provider) -> None:
    try:
        idp.client_credentials("deploy:read", "https://other.example.com/mcp")
    except Refused as why:
        assert str(why) == "invalid_target"  # noqa: PT017 - the message is what is looked at
    else:
        raise AssertionError("a token for a resource that nobody configured")


def _goes_on(gateway: Behind, token: str) -> None:
    """Longer than keys are fresh, so that a fetch has failed meanwhile."""
    assert gateway.takes(token)
    until(lambda: "were not refreshed" in gateway.log)
    assert gateway.takes(token)


def _rotated(idp: Provider, gateway: Behind, old: str) -> None:
    new = idp.client_credentials("deploy:read")
    assert part_of(new, 0)["kid"] != part_of(old, 0)["kid"]
    until(lambda: gateway.takes(new))
    assert gateway.reason(old) == "auth.unknown_key"
