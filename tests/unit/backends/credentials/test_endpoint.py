import asyncio

import pytest

from gateway.backends.credentials import forms
from gateway.backends.credentials.tokens import TokenRefusedError
from gateway.egress.documents import UnusableError

from .provider import BACKEND, ISSUER, METADATA, PROTECTED, Provider

OTHER = "https://login.example/realm"
OTHER_METADATA = "https://login.example/.well-known/oauth-authorization-server/realm"


def discovered() -> Provider:
    """A backend that names its authorization server itself."""
    provider = Provider()
    provider.documents[PROTECTED] = {"resource": BACKEND, "authorization_servers": [OTHER], "scopes_supported": ["b"]}
    provider.documents[OTHER_METADATA] = {"issuer": OTHER, "token_endpoint": "https://login.example/token"}
    return provider


async def test_a_token_endpoint_that_is_named_is_asked_at_once() -> None:
    provider = Provider()
    endpoint = provider.endpoint(token_url=f"{ISSUER}/t", scopes="[a, b]")
    assert (await endpoint.ask(forms.client_credentials())).value == "t1"
    assert provider.asked == [f"{ISSUER}/t"]
    assert provider.forms == [{"grant_type": "client_credentials", "resource": BACKEND, "scope": "a b"}]
    assert provider.requests[0][1].headers["authorization"].startswith("Basic ")
    await endpoint.aclose()


async def test_an_issuers_metadata_are_read_once() -> None:
    provider = Provider()
    endpoint = provider.endpoint(issuer=ISSUER)
    for _ in range(3):
        await endpoint.ask(forms.client_credentials())
    assert provider.asked == [METADATA, *[f"{ISSUER}/token"] * 3]


async def test_an_issuers_metadata_are_read_once_for_all_who_ask_at_once_and_again_after_a_failure() -> None:
    provider = Provider()
    metadata = provider.documents.pop(METADATA)
    endpoint = provider.endpoint(issuer=ISSUER)
    failed = await asyncio.gather(*(endpoint.authority() for _ in range(10)), return_exceptions=True)
    assert {type(failure) for failure in failed} == {UnusableError}
    assert provider.asked.count(METADATA) == 1
    provider.documents[METADATA] = metadata
    assert len(set(await asyncio.gather(*(endpoint.authority() for _ in range(10))))) == 1
    assert provider.asked.count(METADATA) == 2


async def test_one_who_is_cancelled_stops_nothing_and_closing_tells_who_waits() -> None:
    provider = Provider()
    endpoint = provider.endpoint(issuer=ISSUER)
    first, second = (asyncio.create_task(endpoint.authority()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).issuer == ISSUER
    assert provider.asked == [METADATA]
    other = provider.endpoint(issuer=ISSUER)
    waiting = asyncio.create_task(other.authority())
    await asyncio.sleep(0)
    await other.aclose()
    with pytest.raises(UnusableError, match="closed"):
        await waiting


async def test_a_resource_can_be_another_or_none() -> None:
    provider = Provider()
    await provider.endpoint(issuer=ISSUER, resource="'urn:x'").ask({})
    await provider.endpoint(issuer=ISSUER, resource="none", audience="api").ask({})
    assert provider.forms == [{"resource": "urn:x"}, {"audience": "api"}]


@pytest.mark.parametrize(
    ("methods", "chosen", "in_form"),
    [
        (["client_secret_post"], {}, True),
        (["client_secret_post", "client_secret_basic"], {}, False),
        (["client_secret_post"], {"client_auth": "basic"}, False),
        (["client_secret_basic"], {"client_auth": "post"}, True),
    ],
)
async def test_a_secret_is_sent_as_the_server_takes_it_or_as_is_said(
    methods: list[str], chosen: dict[str, str], *, in_form: bool
) -> None:
    provider = Provider()
    provider.documents[METADATA]["token_endpoint_auth_methods_supported"] = methods
    await provider.endpoint(issuer=ISSUER, **chosen).ask({})
    assert ("client_secret" in provider.forms[0]) is in_form
    assert ("authorization" in provider.requests[-1][1].headers) is not in_form


async def test_a_backend_can_name_its_authorization_server() -> None:
    provider = discovered()
    assert (await provider.endpoint().ask({})).value == "t1"
    assert provider.asked == [BACKEND, PROTECTED, OTHER_METADATA, "https://login.example/token"]
    assert provider.forms == [{"resource": BACKEND, "scope": "b"}]
    assert [reach for reach, _ in provider.requests] == ["configured", "configured", "public", "public"]


async def test_what_the_backend_is_asked_first_has_no_credential() -> None:
    provider = discovered()
    await provider.endpoint().ask({})
    first = provider.requests[0][1]
    assert "authorization" not in first.headers
    assert b"secret" not in first.content


async def test_a_challenge_says_where_the_metadata_are_and_which_scopes_it_wants() -> None:
    provider = discovered()
    elsewhere = "https://tools.example/about"
    provider.documents[elsewhere] = provider.documents.pop(PROTECTED)
    provider.challenge = f'Bearer resource_metadata="{elsewhere}", scope="x y"'
    await provider.endpoint().ask({})
    assert provider.asked[1] == elsewhere
    assert provider.forms[0]["scope"] == "x y"


@pytest.mark.parametrize("url", ["http://tools.example/about", "http://169.254.169.254/x", "https://u:p@x.example/"])
async def test_a_challenge_leads_to_https_only(url: str) -> None:
    provider = discovered()
    provider.challenge = f'Bearer resource_metadata="{url}"'
    with pytest.raises(UnusableError, match="https"):
        await provider.endpoint().ask({})
    assert provider.asked == [BACKEND]


async def test_metadata_on_another_host_must_be_public() -> None:
    provider = discovered()
    elsewhere = "https://other.example/about"
    provider.documents[elsewhere] = provider.documents[PROTECTED]
    provider.challenge = f'Bearer resource_metadata="{elsewhere}"'
    await provider.endpoint().ask({})
    assert (provider.requests[1][0], provider.asked[1]) == ("public", elsewhere)


async def test_an_operator_can_allow_a_private_authorization_server() -> None:
    provider = discovered()
    await provider.endpoint(allow_private="true").ask({})
    assert {reach for reach, _ in provider.requests} == {"configured"}


async def test_a_configured_issuer_may_name_a_token_endpoint_elsewhere_only_if_it_is_public() -> None:
    provider = Provider()
    provider.documents[METADATA]["token_endpoint"] = "https://elsewhere.example/token"
    await provider.endpoint(issuer=ISSUER).ask({})
    assert [reach for reach, _ in provider.requests] == ["configured", "public"]


async def test_a_backend_that_changes_its_authorization_server_gets_no_secret_sent_there() -> None:
    provider = discovered()
    endpoint = provider.endpoint()
    await endpoint.ask({})
    provider.answers = [(503, {})]
    with pytest.raises(UnusableError):
        await endpoint.ask({})
    evil = "https://evil.example"
    provider.documents[PROTECTED]["authorization_servers"] = [evil]
    provider.documents[f"{evil}/.well-known/oauth-authorization-server"] = {
        "issuer": evil,
        "token_endpoint": f"{evil}/token",
    }
    with pytest.raises(UnusableError, match="another authorization server than before"):
        await endpoint.ask({})
    assert not [url for url in provider.asked if url.startswith(evil)]


async def test_a_backend_without_metadata_is_said_so() -> None:
    with pytest.raises(UnusableError, match=r"metadata was not found: HTTP status 404$"):
        await Provider().endpoint().ask({})


async def test_an_endpoint_that_fails_is_looked_for_anew() -> None:
    provider = Provider()
    endpoint = provider.endpoint(issuer=ISSUER)
    await endpoint.ask({})
    provider.answers = [(404, {})]
    with pytest.raises(UnusableError):
        await endpoint.ask({})
    provider.documents[METADATA]["token_endpoint"] = f"{ISSUER}/new"
    await endpoint.ask({})
    assert provider.asked[-1] == f"{ISSUER}/new"


async def test_a_refusal_is_told_apart() -> None:
    provider = Provider()
    provider.answers = [(401, {"error": "invalid_client"})]
    with pytest.raises(TokenRefusedError, match="invalid_client"):
        await provider.endpoint(issuer=ISSUER).ask({})
