import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.credentials import metadata
from gateway.egress.documents import UnusableError

BACKEND = "https://tools.example/team/mcp"
ISSUER = "https://idp.example/realm"


def test_a_challenge_names_metadata_and_scopes() -> None:
    said = 'Bearer error="invalid_token", resource_metadata="https://tools.example/prm", scope="a b"'
    assert metadata.challenge_of(said) == metadata.Challenge("https://tools.example/prm", ("a", "b"))


@pytest.mark.parametrize("said", ["", "Basic realm=x", "Bearer", 'bearer resource_metadata=""', "Bearer ,,=;"])
def test_a_challenge_without_them_says_nothing(said: str) -> None:
    assert metadata.challenge_of(said) == metadata.Challenge()


@given(st.text(max_size=300))
def test_no_challenge_breaks_the_reader(said: str) -> None:
    assert metadata.challenge_of("Bearer " + said)


@pytest.mark.parametrize("piece", ["a", "a ", "a=", 'a="', 'a="\\\\', " ", ","])
def test_a_long_challenge_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    metadata.challenge_of("Bearer " + piece * 8000)

    assert time.process_time() - started < 0.1


def test_metadata_are_looked_for_below_the_path_first() -> None:
    assert metadata.protected_resource_urls(BACKEND) == (
        "https://tools.example/.well-known/oauth-protected-resource/team/mcp",
        "https://tools.example/.well-known/oauth-protected-resource",
    )
    assert metadata.authorization_server_urls(ISSUER) == (
        "https://idp.example/.well-known/oauth-authorization-server/realm",
        "https://idp.example/.well-known/openid-configuration/realm",
        "https://idp.example/realm/.well-known/openid-configuration",
    )
    assert len(metadata.authorization_server_urls("https://idp.example")) == 2


def protected(**members: Any) -> metadata.Protected:
    document = {"resource": BACKEND, "authorization_servers": [ISSUER], "scopes_supported": ["a"], **members}
    return metadata.protected_of(document, BACKEND)


@pytest.mark.parametrize("resource", [BACKEND, "https://tools.example/team", "https://tools.example", BACKEND + "/"])
def test_metadata_of_the_backend_or_of_what_is_above_it_are_its_own(resource: str) -> None:
    assert protected(resource=resource) == metadata.Protected(resource, ISSUER, ("a",))


@pytest.mark.parametrize(
    "resource",
    [
        "https://tools.example/team/mcp/more",
        "https://tools.example/tea",
        "https://tools.example:8443/team/mcp",
        "http://tools.example/team/mcp",
        "https://evil.example/team/mcp",
        "https://[",
        None,
        7,
    ],
)
def test_metadata_of_another_resource_are_not(resource: Any) -> None:
    with pytest.raises(UnusableError, match="another resource"):
        protected(resource=resource)


@pytest.mark.parametrize("servers", [None, [], [7], ["http://idp.example"], ["https://u:p@idp.example"], ISSUER])
def test_an_authorization_server_is_at_an_https_url(servers: Any) -> None:
    with pytest.raises(UnusableError, match="authorization server"):
        protected(authorization_servers=servers)


def server(**members: Any) -> metadata.Server:
    document = {"issuer": ISSUER, "token_endpoint": "https://idp.example/token", **members}
    return metadata.server_of(document, ISSUER)


def test_a_servers_metadata_name_its_endpoints_and_what_it_can() -> None:
    found = server(
        authorization_endpoint="https://idp.example/authorize",
        token_endpoint_auth_methods_supported=["client_secret_post", 7],
        code_challenge_methods_supported=["S256"],
        authorization_response_iss_parameter_supported=True,
    )
    assert found == metadata.Server(
        "https://idp.example/token", "https://idp.example/authorize", ("client_secret_post",), ("S256",), True
    )
    assert metadata.only_post(found.methods)
    assert not metadata.only_post(())


@pytest.mark.parametrize("issuer", [None, ISSUER + "/", "https://evil.example"])
def test_a_document_of_another_issuer_is_refused(issuer: Any) -> None:
    with pytest.raises(UnusableError, match="another issuer"):
        server(issuer=issuer)


@pytest.mark.parametrize("url", [None, 7, "http://idp.example/token", "file:///etc/passwd"])
def test_a_token_endpoint_is_at_an_https_url(url: Any) -> None:
    with pytest.raises(UnusableError, match="token_endpoint"):
        server(token_endpoint=url)


def test_an_authorization_endpoint_that_is_not_is_as_good_as_none() -> None:
    assert server(authorization_endpoint="javascript:alert(1)").authorization_url is None


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example;script-src */authorize",
        "https://idp.example script-src/authorize",
        "https://idp.example/authorize#here",
        "https://idp.example/authorize\r\nset-cookie: a=b",
        'https://idp.example/"authorize',
        "https://idp.\u4f8b/authorize",
    ],
)
def test_nor_is_one_that_would_say_more_to_a_browser_than_where_to_go(url: str) -> None:
    assert server(authorization_endpoint=url).authorization_url is None


@pytest.mark.parametrize("rest", ["", "/a/authorize", "?tenant=1", ":8443/authorize?tenant=1&x=%20"])
def test_one_may_have_a_port_and_a_query(rest: str) -> None:
    assert server(authorization_endpoint=f"https://idp.example{rest}").authorization_url is not None
