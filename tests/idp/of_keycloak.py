"""What is tried with Keycloak and the realm of ``examples/keycloak``."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.harness import until

from . import install, to_backends
from .client import McpClient
from .gateway import READ, SOON, WRITE, Behind, gateway, shipped_auth
from .issuers import RESOURCE, Keycloak, Refused, keycloak, part_of

Run = Callable[[str, Callable[[], None]], None]


def run(folder: Path, deploy_url: str, check: Run) -> None:
    """Start everything and make the checks.

    Raises:
        Missing: Java or Keycloak is not to be had.
    """
    java, unpacked = install.java(), install.keycloak()
    with keycloak(unpacked, java, folder) as idp:
        shared = {"KEYCLOAK_ISSUER": idp.issuer, "DEPLOY_URL": deploy_url, "AGENTS_RESOURCE": RESOURCE}
        auth = shipped_auth().replace("auth:\n", f"auth:\n{SOON}", 1)
        with gateway(folder / "by-keys", auth, **shared) as one:
            for test in (_Flows(idp, one), _Refusals(idp, one), _Rotation(idp, one)):
                for name in (name for name in vars(type(test)) if not name.startswith("_")):
                    check(f"keycloak: {name.replace('_', ' ')}", getattr(test, name))
        asked = _asked(idp)
        with gateway(folder / "by-asking", asked, **shared, ASK_SECRET=idp.secret) as one:
            check("keycloak: a revoked token is refused within ttl", lambda: _revoked(idp, one))
        to_backends.run(idp, folder, check)


class _Flows:
    def __init__(self, idp: Keycloak, gateway: Behind) -> None:
        self._idp = idp
        self._gateway = gateway

    def client_credentials_call_what_their_scope_allows(self) -> None:
        token = self._idp.client_credentials("ci", "deploy:read")
        assert self._gateway.takes(token, READ)
        refused = self._gateway.call(token, WRITE)
        assert refused.status_code == 403
        assert 'scope="deploy:write"' in refused.headers["www-authenticate"]
        assert self._gateway.takes(self._idp.client_credentials("ci", "deploy:read deploy:write"), WRITE)

    def a_token_without_scopes_sees_nothing(self) -> None:
        assert self._gateway.call(self._idp.client_credentials("ci"), READ).status_code == 403

    def authorization_code_with_pkce_is_the_user_through_the_client(self) -> None:
        said = self._idp.authorization_code("desktop", "ada", "deploy:read")
        claims = part_of(said["access_token"], 1)
        assert claims["azp"] == "desktop"
        assert self._gateway.takes(said["access_token"], READ)
        who = {"issuer": self._idp.issuer, "subject": claims["sub"], "client_id": "desktop"}
        until(lambda: self._gateway.records()[-1]["principal"] == who)

    def a_realm_role_counts_as_a_scope_and_implies_others(self) -> None:
        said = self._idp.authorization_code("desktop", "ada", "")
        assert "deploy" not in part_of(said["access_token"], 1)["scope"]
        assert self._gateway.takes(said["access_token"], WRITE)

    def an_exchanged_token_is_the_user_with_what_the_service_asked_for(self) -> None:
        of_user = self._idp.authorization_code("desktop", "ada", "deploy:read")["access_token"]
        token = self._idp.exchange("portal", of_user, "deploy:read")
        claims = part_of(token, 1)
        assert (claims["azp"], claims["sub"]) == ("portal", part_of(of_user, 1)["sub"])
        assert self._gateway.takes(token, READ)
        assert self._gateway.call(token, WRITE).status_code == 403

    def the_metadata_of_the_gateway_leads_to_the_realm(self) -> None:
        document = self._gateway.get("/.well-known/oauth-protected-resource/mcp").json()
        assert document["authorization_servers"] == [self._idp.issuer]
        assert document["scopes_supported"] == ["deploy:read"]

    def an_mcp_client_goes_from_a_401_to_a_call_and_steps_up_for_another(self) -> None:
        self._idp.forget()
        client = McpClient(self._idp, "desktop", "bob")
        assert "checkout" in client.call(READ)
        assert client.scopes == ["deploy:read"]
        client.call(WRITE)
        assert client.scopes == ["deploy:read", "deploy:write"]
        self._idp.forget()


class _Refusals:
    def __init__(self, idp: Keycloak, gateway: Behind) -> None:
        self._idp = idp
        self._gateway = gateway

    def a_token_without_our_audience_is_refused(self) -> None:
        token = self._idp.client_credentials("other-service", "deploy:read")
        assert RESOURCE not in str(part_of(token, 1).get("aud"))
        assert self._gateway.reason(token) in {"auth.wrong_audience", "auth.missing_claim"}

    def a_token_of_another_realm_is_refused(self) -> None:
        self._idp.other_realm()
        token = self._idp.token_of_other_realm()
        assert RESOURCE in part_of(token, 1)["aud"]
        assert self._gateway.reason(token) == "auth.unknown_issuer"

    def an_id_token_and_a_refresh_token_are_refused(self) -> None:
        said = self._idp.authorization_code("desktop", "ada", "deploy:read")
        assert self._gateway.reason(said["id_token"]) == "auth.token_type"
        assert self._gateway.reason(said["refresh_token"]) == "auth.algorithm"

    def a_client_gets_no_scope_that_it_may_not_have(self) -> None:
        try:
            self._idp.client_credentials("other-service", "deploy:write")
        except Refused as why:
            assert str(why) == "invalid_scope"  # noqa: PT017 - the message is what is looked at
        else:
            raise AssertionError("Keycloak gave a scope that the client does not have")


class _Rotation:
    def __init__(self, idp: Keycloak, gateway: Behind) -> None:
        self._idp = idp
        self._gateway = gateway

    def a_new_key_is_followed_and_the_old_one_goes_on(self) -> None:
        old = self._idp.client_credentials("ci", "deploy:read")
        assert self._gateway.takes(old)
        self._idp.add_key(200)
        new = self._idp.client_credentials("ci", "deploy:read")
        assert part_of(new, 0)["kid"] != part_of(old, 0)["kid"]
        until(lambda: self._gateway.takes(new))
        assert self._gateway.takes(old)

    def a_withdrawn_key_takes_its_tokens_along(self) -> None:
        before = set(self._idp.signing_keys())
        added = self._idp.add_key(300)
        token = self._idp.client_credentials("ci", "deploy:read")
        until(lambda: self._gateway.takes(token))
        self._idp.remove_key(added)
        assert set(self._idp.signing_keys()) == before
        until(lambda: self._gateway.call(token).status_code == 401)
        assert self._gateway.reason(token) == "auth.unknown_key"
        assert self._gateway.takes(self._idp.client_credentials("ci", "deploy:read"))


def _asked(idp: Keycloak) -> str:
    """``auth:`` of a gateway that asks Keycloak about every token."""
    return f"""\
auth:
  resource: {RESOURCE}
  issuers:
    - issuer: {idp.issuer}
      introspection:
        url: {idp.endpoint("token/introspect")}
        client_id: mcp-gateway
        client_secret: "${{ASK_SECRET}}"
        ttl: 1s
"""


def _revoked(idp: Keycloak, gateway: Behind) -> None:
    token = idp.client_credentials("ci", "deploy:read")
    assert gateway.takes(token), gateway.reason(token)
    idp.revoke("ci", token)
    began = time.monotonic()
    until(lambda: gateway.call(token).status_code == 401)
    assert time.monotonic() - began < 2, "the stated time is a second"
    assert gateway.reason(token) == "auth.inactive"
    assert gateway.reason("not-a-token-of-anybody") == "auth.inactive"
