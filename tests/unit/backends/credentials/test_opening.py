import pytest

from gateway.backends.credentials.exchanging import ExchangedTokens
from gateway.backends.credentials.grants import Grants
from gateway.backends.credentials.opening import open_account, open_source
from gateway.backends.credentials.service import ServiceToken
from gateway.backends.link import NotConnected
from gateway.backends.verdict import NOBODY
from gateway.models import Principal
from gateway.routes import Route, parse
from gateway.stores.vault import MemoryVault

CLIENT = "client_id: g, client_secret: '${S}'"


def route(credentials: str) -> Route:
    text = (
        "auth: {resource: 'https://g.example', issuers: [{issuer: 'https://i.example'}]}\n"
        f"routes: [{{name: a, backend: {{url: 'https://b.example'{credentials}}}}}]"
    )
    return parse(text, source="x", environ={"S": "s", "T": "token"}).routes[0]


@pytest.mark.parametrize("credentials", ["", ", credentials: {bearer: '${T}'}", ", credentials: {header: {X: '${T}'}}"])
def test_what_is_known_at_load_needs_no_source(credentials: str) -> None:
    assert open_source(route(credentials)) is None


def test_client_credentials_are_one_token_for_all() -> None:
    found = open_source(route(f", credentials: {{client_credentials: {{{CLIENT}}}, header: {{X-Key: '${{T}}'}}}}"))
    assert isinstance(found, ServiceToken)


async def test_an_exchange_has_a_token_for_the_gateway_itself() -> None:
    text = f"token_exchange: {{token_url: 'https://i.example/t', {CLIENT}}}"
    found = open_source(route(f", credentials: {{{text}, bearer: '${{T}}'}}"))
    assert isinstance(found, ExchangedTokens)
    assert await found.token(NOBODY) == "token"
    assert isinstance(open_source(route(f", credentials: {{{text}}}")), ExchangedTokens)


@pytest.mark.parametrize(("beside", "token"), [("", ""), (", bearer: '${T}'", "token")])
async def test_accounts_are_connected_elsewhere_and_lists_have_what_is_beside_them(beside: str, token: str) -> None:
    found = route(f", credentials: {{authorization_code: {{client_id: g, issuer: 'https://l.example'}}{beside}}}")
    source = open_source(found)
    assert source is not None
    assert await source.token(NOBODY) == token
    account = open_account(found, Grants((b"k" * 32,), MemoryVault(), lambda: 0.0))
    assert await account.tokens.token(NOBODY) == token
    assert account.client.client_id == "g"
    with pytest.raises(NotConnected):
        await account.tokens.token(Principal("https://i.example", "alice"))


def test_a_bearer_beside_an_exchange_is_not_sent_with_calls() -> None:
    text = (
        f"token_exchange: {{token_url: 'https://i.example/t', {CLIENT}}}, bearer: '${{T}}', header: {{X-Key: '${{T}}'}}"
    )
    credentials = route(f", credentials: {{{text}}}").backend.credentials
    assert credentials is not None
    assert credentials.headers() == (("X-Key", "token"),)
