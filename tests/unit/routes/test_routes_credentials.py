from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.routes import ConfigError, Credentials, parse

SECRET = "s3cr3t-canary"
AUTH = "auth: {resource: 'https://g.example', issuers: [{issuer: 'https://i.example'}]}\n"


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


EC = pem(ec.generate_private_key(ec.SECP256R1()))
RSA = pem(rsa.generate_private_key(65537, 2048))
ENVIRON = {
    "S": SECRET,
    "EC": EC,
    "RSA": RSA,
    "ESCAPED": EC.replace("\n", "\\n"),
    "SMALL": pem(rsa.generate_private_key(65537, 1024)),
    "OTHER": pem(ed448.Ed448PrivateKey.generate()),
}


def read(credentials: str, backend: str = "", auth: str = AUTH) -> Credentials:
    text = (
        f"{auth}routes: [{{name: a, backend: {{url: 'https://b.example/mcp', credentials: {credentials}{backend}}}}}]"
    )
    found = parse(text, source="x", environ=ENVIRON).routes[0].backend.credentials
    assert found is not None
    return found


def cc(fields: str) -> str:
    return f"{{client_credentials: {{client_id: g, {fields}}}}}"


def exchange(fields: str = "issuer: 'https://i.example', client_secret: '${S}'", more: str = "") -> str:
    return f"{{token_exchange: {{client_id: g, {fields}}}{more}}}"


@pytest.mark.parametrize("reference", ["${EC}", "${ESCAPED}"])
def test_a_private_key_is_pem_in_several_lines_or_with_escaped_ones(reference: str) -> None:
    client = read(cc(f"private_key: '{reference}', key_id: k")).client_credentials
    assert client is not None
    assert client.signs_with == "ES256"


def test_a_private_key_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(RSA)
    client = read(cc(f"private_key: 'file:{tmp_path}/key.pem', algorithm: PS256")).client_credentials
    assert client is not None
    assert client.signs_with == "PS256"


def test_headers_go_beside_tokens() -> None:
    credentials = read("{client_credentials: {client_id: g, client_secret: '${S}'}, header: {X-Key: '${S}'}}")
    assert credentials.headers() == (("X-Key", SECRET),)
    assert not credentials.static
    assert not credentials.per_principal


def test_nothing_shows_a_secret() -> None:
    for text in (cc("client_secret: '${S}'"), cc("private_key: '${EC}'"), exchange()):
        credentials = read(text)
        for shown in (repr(credentials), str(credentials.model_dump()), credentials.model_dump_json()):
            assert SECRET not in shown
            assert "PRIVATE KEY" not in shown


BAD = {
    "no proof": (cc("scopes: [a]"), "client_credentials", "needs client_secret or private_key"),
    "no client": ("{client_credentials: {client_secret: '${S}'}}", "client_credentials.client_id", "required"),
    "secret inline": (cc("client_secret: abc"), "client_credentials.client_secret", "never inline"),
    "key inline": (cc("private_key: abc"), "client_credentials.private_key", "never inline"),
    "key no key": (cc("private_key: '${S}'"), "client_credentials.private_key", "not a private key"),
    "key small": (cc("private_key: '${SMALL}'"), "client_credentials.private_key", "not a private key"),
    "key of another kind": (cc("private_key: '${OTHER}'"), "client_credentials.private_key", "not a private key"),
    "key missing": (cc("private_key: '${NONE}'"), "client_credentials.private_key", "NONE not set"),
    "both proofs": (cc("client_secret: '${S}', private_key: '${EC}'"), "client_credentials", "has both client_secret"),
    "algorithm of another key": (
        cc("private_key: '${EC}', algorithm: RS256"),
        "client_credentials",
        "does not sign with RS256",
    ),
    "algorithm alone": (cc("client_secret: '${S}', algorithm: RS256"), "client_credentials", "no private_key"),
    "auth of a key": (cc("private_key: '${EC}', client_auth: post"), "client_credentials", "no client_secret"),
    "auth unknown": (cc("client_secret: '${S}', client_auth: x"), "client_credentials.client_auth", "basic"),
    "two places": (
        cc("client_secret: '${S}', issuer: 'https://i.example', token_url: 'https://i.example/t'"),
        "client_credentials",
        "has both issuer and token_url",
    ),
    "http": (cc("client_secret: '${S}', issuer: 'http://i.example'"), "client_credentials.issuer", "https"),
    "http token": (cc("client_secret: '${S}', token_url: 'http://i.example'"), "client_credentials.token_url", "https"),
    "private but named": (
        cc("client_secret: '${S}', issuer: 'https://i.example', allow_private: true"),
        "client_credentials",
        "allow_private does not apply",
    ),
    "resource": (cc("client_secret: '${S}', resource: x"), "client_credentials.resource", "must be a URI"),
    "exchange anywhere": (exchange("client_secret: '${S}'"), "token_exchange", "needs issuer or token_url"),
    "exchange without proof": (exchange("issuer: 'https://i.example'"), "token_exchange", "needs client_secret"),
    "two of our own": (
        "{bearer: '${S}', client_credentials: {client_id: g, client_secret: '${S}'}}",
        "",
        "has both bearer and client_credentials",
    ),
    "authorization twice": (
        "{header: {authorization: '${S}'}, client_credentials: {client_id: g, client_secret: '${S}'}}",
        "",
        "sets a header twice",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_reported_where_it_is_with_a_hint(case: str) -> None:
    text, where, words = BAD[case]
    with pytest.raises(ConfigError) as caught:
        read(text)
    (problem,) = caught.value.problems
    assert problem.path == f"routes[0].backend.credentials{'.' if where else ''}{where}"
    assert words in problem.message
    assert problem.hint
    assert SECRET not in str(caught.value)


def test_a_token_of_each_principal_needs_principals() -> None:
    with pytest.raises(ConfigError, match="needs auth:"):
        read(exchange(), auth="")


def test_and_sessions_that_are_not_shared() -> None:
    with pytest.raises(ConfigError, match="cannot be shared"):
        read(exchange(), ", session: shared")


@pytest.mark.parametrize("more", [", bearer: '${S}'", ", client_credentials: {client_id: h, client_secret: '${S}'}"])
def test_lists_can_have_credentials_of_their_own(more: str) -> None:
    assert read(exchange(more=more)).per_principal


def code(fields: str) -> str:
    return f"{{authorization_code: {{client_id: g{fields}}}}}"


def test_an_account_needs_no_secret_and_two_endpoints_or_an_issuer_or_the_backends_word() -> None:
    both = ", authorization_url: 'https://l.example/a', token_url: 'https://l.example/t'"
    for fields in ("", ", issuer: 'https://l.example'", both, ", allow_private: true"):
        assert read(code(fields)).per_principal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (code(", token_url: 'https://l.example/t'"), "needs both"),
        (code(", authorization_url: 'https://l.example/a', issuer: 'https://l.example'"), "needs both"),
        (code(", authorization_url: 'http://l.example/a', token_url: 'https://l.example/t'"), "https"),
        (code(", issuer: 'https://l.example', allow_private: true"), "allow_private does not apply"),
        (
            "{authorization_code: {client_id: g}, "
            "token_exchange: {client_id: g, issuer: 'https://i.example', client_secret: '${S}'}}",
            "has both token_exchange and authorization_code",
        ),
    ],
)
def test_a_mistake_in_it_is_reported(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(text)


def test_an_account_needs_principals_too() -> None:
    with pytest.raises(ConfigError, match="needs auth:"):
        read(code(""), auth="")


@pytest.mark.parametrize(
    ("credentials", "more", "opens"),
    [
        (code(""), "", True),
        (exchange(), "", True),
        (cc("client_secret: '${S}'"), "", False),
        (code(""), ", url_elicitation: false", False),
    ],
)
def test_a_backend_that_knows_whose_call_it_is_may_ask_people_to_open_urls(
    credentials: str, more: str, *, opens: bool
) -> None:
    text = f"{AUTH}routes: [{{name: a, backend: {{url: 'https://b.example/mcp', credentials: {credentials}{more}}}}}]"
    assert bool(parse(text, source="x", environ=ENVIRON).opening_urls()) is opens
