"""``backend.credentials``: what the gateway shows a backend, and where it gets it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, model_validator

from gateway.routes.auth import Algorithm
from gateway.routes.fields import Flag, Model, Scopes, SecureUrl, Text, Word
from gateway.routes.references import NEVER_INLINE, Expandable, Secret, environ_of, has_reference, resolve_secret

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"),
        *("expect", "host", "keep-alive", "last-event-id", "proxy-connection", "te", "traceparent", "tracestate"),
        *("trailer", "transfer-encoding", "upgrade"),
    )
)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def _header_name(name: str) -> str:
    if _HEADER.fullmatch(name) is None:
        raise ValueError("is not the name of a header", "such as X-Api-Key")
    if name.lower() in _OURS or name.lower().startswith("mcp-"):
        raise ValueError(
            "is a header that the gateway sets itself", "choose the header in which the backend expects it"
        )
    return name


def _pem(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if not has_reference(value):
        raise ValueError(*NEVER_INLINE)
    text = resolve_secret(value, environ_of(info), lines=True).replace("\\n", "\n")
    if not _algorithms_of(text):
        raise ValueError(
            "is not a private key that can sign", "RSA of 2048 bits or more, EC P-256 to P-521, or Ed25519"
        )
    return text


def _algorithms_of(pem: str) -> tuple[str, ...]:
    """The algorithms that a private key in PEM can sign with, the preferred one first."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        return ()
    if isinstance(key, rsa.RSAPrivateKey):
        return _RSA if key.key_size >= 2048 else ()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return tuple(filter(None, (_CURVES.get(key.curve.name),)))
    return ("EdDSA",) if isinstance(key, ed25519.Ed25519PrivateKey) else ()


def _resource(value: str) -> str:
    if value != "none" and not value.startswith(("http://", "https://", "urn:", "api:")):
        raise ValueError("must be a URI", "such as https://host.example/mcp, or none to send no resource")
    return value


PrivateKey = Annotated[SecretStr, BeforeValidator(_pem, json_schema_input_type=str)]
"""A private key in PEM, written as a reference."""


class OAuthClient(Model):
    """The gateway as a client of an authorization server."""

    issuer: SecureUrl | None = Field(
        default=None, description="The authorization server; its metadata (RFC 8414, OIDC) name the endpoints."
    )
    token_url: SecureUrl | None = Field(default=None, description="The token endpoint, in place of `issuer`.")
    client_id: Annotated[Text, Expandable] = Field(description="Who the gateway is there.")
    client_secret: Secret | None = Field(default=None, description="Proves it; as a reference.")
    client_auth: Literal["basic", "post"] | None = Field(
        default=None,
        description="How the secret is sent: `basic`, a header, or `post`, in the form. "
        "Default: `basic`, or `post` where the issuer's metadata offer only that.",
    )
    private_key: PrivateKey | None = Field(
        default=None, description="In place of a secret: a key in PEM, as a reference, that signs a JWT (RFC 7523)."
    )
    algorithm: Algorithm | None = Field(
        default=None, description="Of that signature. Default: RS256, ES256, ES384, ES512 or EdDSA, by the key."
    )
    key_id: Text | None = Field(default=None, description="`kid` of that signature.")
    scopes: Scopes = Field(default=(), description="Scopes to ask for. Default: those that the backend names, or none.")
    resource: Annotated[str, AfterValidator(_resource), Expandable, Word("URI or `none`")] | None = Field(
        default=None, description="`resource` of the request (RFC 8707). Default: the backend's URL."
    )
    audience: Annotated[Text, Expandable] | None = Field(
        default=None, description="`audience`, where a server wants one."
    )

    @model_validator(mode="after")
    def _one_way(self) -> OAuthClient:
        if self.issuer is not None and self.token_url is not None:
            raise ValueError("has both issuer and token_url", "remove one of them")
        if self.client_secret is not None and self.private_key is not None:
            raise ValueError("has both client_secret and private_key", "remove one of them")
        if self.private_key is None and (self.algorithm or self.key_id):
            raise ValueError("has no private_key, so algorithm and key_id do not apply", "add it, or remove them")
        if self.client_secret is None and self.client_auth:
            raise ValueError("has no client_secret, so client_auth does not apply", "add it, or remove client_auth")
        able = _algorithms_of(self.private_key.get_secret_value()) if self.private_key is not None else ()
        if self.algorithm is not None and self.algorithm not in able:
            raise ValueError(f"has a private_key that does not sign with {self.algorithm}", f"it can {able[0]}")
        return self

    @property
    def signs_with(self) -> str:
        """The algorithm of the client's assertion."""
        assert self.private_key is not None
        return self.algorithm or _algorithms_of(self.private_key.get_secret_value())[0]


class ClientCredentials(OAuthClient):
    """A token for the gateway itself (OAuth client credentials), the same for all principals. Without `issuer` and
    `token_url` the backend is asked for its authorization server (RFC 9728): then it decides who learns the secret."""

    allow_private: Flag = Field(
        default=False,
        description="`true`: the authorization server that the backend names may be at a private address.",
    )

    @model_validator(mode="after")
    def _proven(self) -> ClientCredentials:
        _needs_proof(self)
        if self.allow_private and (self.issuer or self.token_url):
            raise ValueError("names its authorization server, so allow_private does not apply", "remove it")
        return self


class TokenExchange(OAuthClient):
    """A token for each principal, in exchange for its own (RFC 8693), which goes to this token endpoint only."""

    @model_validator(mode="after")
    def _proven(self) -> TokenExchange:
        _needs_proof(self)
        if self.issuer is None and self.token_url is None:
            raise ValueError("needs issuer or token_url", "tokens of clients go to a server that you name, to no other")
        return self


class AuthorizationCode(OAuthClient):
    """A token for each principal, by a grant that it gives in a browser ("connect your account"). Without `issuer` and
    `token_url` the backend is asked for its authorization server (RFC 9728): then it decides where people sign in."""

    authorization_url: SecureUrl | None = Field(
        default=None, description="The authorization endpoint, with `token_url` in place of `issuer`."
    )
    allow_private: Flag = Field(
        default=False,
        description="`true`: the authorization server that the backend names may be at a private address.",
    )

    @model_validator(mode="after")
    def _two_endpoints(self) -> AuthorizationCode:
        if (self.authorization_url is None) != (self.token_url is None):
            raise ValueError("needs both authorization_url and token_url", "or issuer, whose metadata name the two")
        if self.allow_private and (self.issuer or self.token_url):
            raise ValueError("names its authorization server, so allow_private does not apply", "remove it")
        return self


def _needs_proof(client: OAuthClient) -> None:
    if client.client_secret is None and client.private_key is None:
        raise ValueError("needs client_secret or private_key", 'such as client_secret: "${SECRET}"')


class Credentials(Model):
    """What the gateway shows a backend. The client's own token is never passed on.

    With `token_exchange` or `authorization_code`, `bearer` or `client_credentials` beside it are for what is nobody's:
    fetching lists.
    """

    bearer: Secret | None = Field(default=None, description="Token of `Authorization: Bearer`, as a reference.")
    header: dict[Annotated[str, AfterValidator(_header_name)], Secret] = Field(
        default={}, description='Headers by name, each value a reference: `{X-Api-Key: "${API_KEY}"}`.'
    )
    client_credentials: ClientCredentials | None = Field(
        default=None, description="A token that the gateway gets for itself."
    )
    token_exchange: TokenExchange | None = Field(
        default=None, description="A token for each principal, in exchange for its own."
    )
    authorization_code: AuthorizationCode | None = Field(
        default=None, description="A token for each principal, by a grant that it gives in a browser."
    )

    @model_validator(mode="after")
    def _something_once(self) -> Credentials:
        names = [name.lower() for name in self.header]
        own = [*([self.bearer] if self.bearer else []), *([self.client_credentials] if self.client_credentials else [])]
        if not names and not own and not self.per_principal:
            raise ValueError("has no credentials", "set bearer:, header: or another one, or remove the key")
        if own or self.per_principal:
            names.append("authorization")
        if len(names) > len(set(names)):
            raise ValueError("sets a header twice", "tokens are sent in Authorization; names ignore case")
        if self.token_exchange and self.authorization_code:
            raise ValueError("has both token_exchange and authorization_code", "remove one of them")
        if len(own) > 1:
            raise ValueError("has both bearer and client_credentials", "remove one of them")
        return self

    @property
    def per_principal(self) -> bool:
        """Whether each principal has a token of its own."""
        return self.token_exchange is not None or self.authorization_code is not None

    @property
    def static(self) -> bool:
        """Whether everything is known at load."""
        return self.client_credentials is None and not self.per_principal

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that every request has, in the clear: for the backend's connection alone."""
        bearer = [("Authorization", f"Bearer {self.bearer.get_secret_value()}")] if self.bearer and self.static else []
        return (*bearer, *((name, secret.get_secret_value()) for name, secret in self.header.items()))
