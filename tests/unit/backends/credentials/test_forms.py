import base64
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.backends.credentials import forms
from gateway.routes import OAuthClient

URL = "https://idp.example/token"


def client(**fields: Any) -> OAuthClient:
    """As the loader makes it: references are resolved."""
    return OAuthClient.model_construct(**{"client_id": "gateway", **_secrets(fields)})


def _secrets(fields: dict[str, Any]) -> dict[str, Any]:
    from pydantic import SecretStr

    return {
        name: SecretStr(value) if name in ("client_secret", "private_key") else value for name, value in fields.items()
    }


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


def test_a_secret_goes_in_a_header_and_not_in_the_form() -> None:
    form, headers = forms.authenticated({}, client(client_secret="s:e c"), audience=URL, method="basic", now=0)
    assert form == {}
    scheme, _, value = headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(value)) == ("Basic", b"gateway:s%3Ae+c")


def test_or_in_the_form_and_not_in_a_header() -> None:
    form, headers = forms.authenticated({}, client(client_secret="s"), audience=URL, method="post", now=0)
    assert form == {"client_id": "gateway", "client_secret": "s"}
    assert headers == {}


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_a_key_signs_an_assertion_for_one_place_and_a_short_time(key: Any, algorithm: str) -> None:
    chosen = client(private_key=pem(key), key_id="k1")
    made = [forms.authenticated({}, chosen, audience=URL, method="basic", now=1000.5) for _ in range(2)]
    (form, headers), (other, _) = made
    assert headers == {}
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert jwt.get_unverified_header(form["client_assertion"])["kid"] == "k1"
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        form["client_assertion"], key.public_key(), algorithms=[algorithm], audience=URL, options=options
    )
    assert (claims["iss"], claims["sub"], claims["iat"], claims["exp"]) == ("gateway", "gateway", 1000, 1060)
    assert form["client_assertion"] != other["client_assertion"]
    assert len(claims["jti"]) >= 16


def test_an_algorithm_can_be_chosen() -> None:
    chosen = client(private_key=pem(rsa.generate_private_key(65537, 2048)), algorithm="PS256")
    form, _ = forms.authenticated({}, chosen, audience=URL, method="basic", now=0)
    assert jwt.get_unverified_header(form["client_assertion"])["alg"] == "PS256"


def test_a_request_says_what_the_token_is_for() -> None:
    asked = forms.targeted(forms.client_credentials(), client(audience="api"), resource="https://b", scopes=("x", "y"))
    assert asked == {
        "grant_type": "client_credentials",
        "resource": "https://b",
        "audience": "api",
        "scope": "x y",
    }
    assert forms.targeted({}, client(), resource=None, scopes=()) == {}


def test_an_exchange_names_the_type_of_what_it_gives_and_wants() -> None:
    assert forms.token_exchange("theirs") == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "theirs",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
