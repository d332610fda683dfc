"""The gateway as an OAuth resource server: several issuers, step-up, toolsets as resources of their own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.devtokens import DevIssuer

from .harness import ISSUER, RESOURCE, Client, Gateway, until

PARTNER = "https://partner.test/tenant"
ROUTES = """\
    - issuer: {partner}
      jwks_file: {keys}
      audience: [api://partner]
      scope_claims: [roles]
      subject_claim: oid
      client_claims: [appid]
  scope_implies: {{deploy:admin: [deploy:read, deploy:write]}}
routes:
  - name: deploy
    backend: {{url: "{url}"}}
    scopes: [deploy:read]
    tools:
      rollback: {{scopes: [deploy:read, deploy:write]}}
toolsets:
  oncall: {{routes: [deploy], tools: [deploy__list_services]}}
"""


@pytest.fixture(scope="module")
def partner() -> DevIssuer:
    return DevIssuer.create(PARTNER, algorithm="ES256")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, deploy_url: str, partner: DevIssuer) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("resource-server")
    keys = folder / "partner.json"
    keys.write_text(json.dumps(partner.jwks()))
    one = Gateway(folder, ROUTES.format(partner=PARTNER, keys=keys, url=deploy_url)).start()
    yield one
    one.stop()


def of_partner(partner: DevIssuer, **claims: Any) -> str:
    given: dict[str, Any] = {"oid": "ann", "appid": "app", "roles": ["deploy:read"], "client_id": "ignored"}
    return partner.mint("pairwise", [], claims.pop("aud", "api://partner"), **(given | claims))


def call(gateway: Gateway, token: str | None, toolset: str = "", tool: str = "deploy__list_services") -> Any:
    return Client(gateway.url + toolset, token).call(tool)


def test_each_issuer_has_its_own_claims_audience_and_algorithm(gateway: Gateway, partner: DevIssuer) -> None:
    assert call(gateway, gateway.token("deploy:read")).status_code == 200
    assert call(gateway, of_partner(partner)).status_code == 200
    who = {"issuer": PARTNER, "subject": "ann", "client_id": "app"}
    until(lambda: who in [record["principal"] for record in gateway.records() if record["event"] == "outcome"])


@pytest.mark.parametrize(
    "mistake",
    ["the other's audience", "the other's key", "the other's scope claim"],
)
def test_what_holds_for_one_issuer_does_not_for_another(gateway: Gateway, partner: DevIssuer, mistake: str) -> None:
    token, status = {
        "the other's audience": (of_partner(partner, aud=RESOURCE), 401),
        "the other's key": (gateway.token("deploy:read", iss=PARTNER), 401),
        "the other's scope claim": (of_partner(partner, roles=[], scope="deploy:read"), 403),
    }[mistake]
    assert call(gateway, token).status_code == status


def test_the_metadata_names_every_issuer_and_all_scopes(gateway: Gateway) -> None:
    document = gateway.get("/.well-known/oauth-protected-resource/mcp").json()
    assert document["authorization_servers"] == [ISSUER, PARTNER]
    assert document["scopes_supported"] == ["deploy:read", "deploy:write"]
    assert gateway.get("/.well-known/oauth-protected-resource").json() == document


def test_a_client_that_follows_the_challenges_gets_in_with_one_step_up(gateway: Gateway) -> None:
    asked = _scopes(call(gateway, None))
    refused = call(gateway, gateway.token("deploy:read"), tool="deploy__rollback")
    assert refused.status_code == 403
    wanted = _scopes(refused)
    assert wanted == "deploy:read deploy:write"
    assert set(wanted.split()) <= set(asked.split())
    assert call(gateway, gateway.token(wanted), tool="deploy__rollback").status_code == 200


def test_a_scope_that_includes_others_needs_no_step_up(gateway: Gateway) -> None:
    assert call(gateway, gateway.token("deploy:admin"), tool="deploy__rollback").status_code == 200


def test_a_toolset_is_a_resource_with_a_document_and_tokens_of_its_own(gateway: Gateway) -> None:
    challenge = call(gateway, None, "/oncall").headers["www-authenticate"]
    assert "/.well-known/oauth-protected-resource/mcp/oncall" in challenge
    document = gateway.get("/.well-known/oauth-protected-resource/mcp/oncall").json()
    assert document["resource"] == f"{RESOURCE}/oncall"
    narrow = gateway.token("deploy:read", aud=document["resource"])
    assert call(gateway, narrow, "/oncall").status_code == 200
    assert call(gateway, narrow).status_code == 401
    assert call(gateway, gateway.token("deploy:read"), "/oncall").status_code == 200
    assert gateway.get("/.well-known/oauth-protected-resource/mcp/nowhere").status_code == 404


def test_a_token_counts_in_the_header_alone(gateway: Gateway) -> None:
    token = gateway.token("deploy:read")
    assert call(gateway, None, f"?access_token={token}").status_code == 401
    client = Client(gateway.url, None)
    assert client.call("deploy__list_services", Cookie=f"access_token={token}").status_code == 401
    assert client.call("deploy__list_services", Authorization=f"Basic {token}").status_code == 401


def _scopes(reply: Any) -> str:
    found = re.search(r'scope="([^"]*)"', reply.headers["www-authenticate"])
    assert found is not None
    return found[1]
