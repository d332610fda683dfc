"""``auth:`` of routes.yaml: whose tokens are accepted, and what their scopes imply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.routes.fields import Duration, HttpUrl, Leeway, Model, Scope, Scopes, SecureUrl, Text, listed, unique
from gateway.routes.references import Expandable, Secret

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip


def _asymmetric(value: object) -> object:
    if isinstance(value, str) and (value.upper().startswith("HS") or value.lower() == "none"):
        raise ValueError(
            f"{value[:8]} is never accepted: whoever can check such a token can make one",
            "use an asymmetric algorithm, such as RS256, ES256 or EdDSA",
        )
    return value


def _file(value: str, info: ValidationInfo) -> str:
    if info.context is not None and not Path(value).is_file():
        raise ValueError(f"there is no file {value}", "mount the key set where the gateway runs")
    return value


class Introspection(Model):
    """Where tokens that only their issuer can read are asked about (RFC 7662)."""

    url: SecureUrl = Field(description="The introspection endpoint.")
    client_id: Annotated[Text, Expandable] = Field(description="The gateway's own client at the issuer.")
    client_secret: Secret = Field(description="Its secret, as a reference; shown with HTTP Basic.")
    ttl: Duration = Field(
        default=30.0,
        description="How long an answer holds, and so the longest time that a revoked token is still accepted.",
    )


class Issuer(Model):
    """An authorization server whose tokens are accepted."""

    issuer: SecureUrl = Field(description="Identifier of the issuer, compared with `iss` character by character.")
    audience: Annotated[
        tuple[Annotated[Text, Expandable], ...],
        BeforeValidator(listed, json_schema_input_type=str | list[str]),
        AfterValidator(unique),
    ] = Field(default=(), description="Accepted values of `aud`; any of them is enough. Default: `resource`.")
    jwks_uri: SecureUrl | None = Field(
        default=None, description="Where the key set is. Default: discovered from the issuer (RFC 8414, OIDC)."
    )
    jwks_file: Annotated[str, AfterValidator(_file)] | None = Field(
        default=None, description="A file with a static key set, in place of `jwks_uri`."
    )
    algorithms: tuple[Annotated[Algorithm, BeforeValidator(_asymmetric)], ...] = Field(
        default=("RS256", "ES256", "EdDSA"),
        min_length=1,
        description="Accepted signature algorithms. `HS*` and `none` are never accepted.",
    )
    scope_claims: tuple[Text, ...] = Field(
        default=("scope", "scp", "scopes"),
        min_length=1,
        description="Claims that carry the scopes, as text or list; those of all of them count. "
        "A path such as `realm_access.roles` leads into objects.",
    )
    client_claims: tuple[Text, ...] = Field(
        default=("client_id", "azp", "appid", "cid"),
        min_length=1,
        description="Claims that name the OAuth client; the first that is there counts.",
    )
    subject_claim: Text = Field(default="sub", description="Claim that says whom the token speaks for.")
    introspection: Introspection | None = Field(
        default=None,
        description="For opaque tokens: ask the issuer. Its JWTs are asked about too, unless `jwks_uri` or `jwks_file` "
        "is set. For one issuer at most.",
    )

    @property
    def has_keys(self) -> bool:
        """Whether its JWTs are verified by keys; otherwise the issuer is asked about each."""
        return self.introspection is None or self.jwks_uri is not None or self.jwks_file is not None

    @model_validator(mode="after")
    def _one_source(self) -> Issuer:
        if self.jwks_uri is not None and self.jwks_file is not None:
            raise ValueError("has both jwks_uri and jwks_file", "remove one of them")
        return self


class JwksPolicy(Model):
    """How long keys are kept."""

    ttl: Duration = Field(default=600.0, description="Age at which a key set is fetched again, in the background.")
    cooldown: Duration = Field(default=30.0, description="At most one attempt to fetch in this time, for each issuer.")
    stale: Duration = Field(default=21_600.0, description="How long keys go on while the issuer is away.")

    @model_validator(mode="after")
    def _stale_outlives_ttl(self) -> JwksPolicy:
        if self.stale < self.ttl:
            raise ValueError("stale is shorter than ttl", "keys would be dropped before they are fetched again")
        return self


class Auth(Model):
    """Authentication by OAuth access tokens: JWTs, and opaque ones of an issuer with `introspection`."""

    resource: HttpUrl = Field(
        description="Our own identifier: the default audience, and `resource` of the metadata (RFC 9728)."
    )
    issuers: tuple[Issuer, ...] = Field(min_length=1, description="Whose tokens are accepted; one or more.")
    leeway: Leeway = Field(default=30.0, description="Tolerated difference of clocks; at most 5m.")
    jwks: JwksPolicy = Field(default=JwksPolicy(), description="When key sets are fetched and dropped.")
    scope_implies: dict[Scope, Scopes] = Field(
        default={}, description="Scopes that include others, such as `deploy:admin: [deploy:read, deploy:write]`."
    )

    initial_scopes: Scopes | None = Field(
        default=None,
        description="Scopes that a client without a token is told to ask for; what a call needs beyond them it is told "
        "then. Default: all that something needs. Issuers may refuse a client that asks for more than it may have.",
    )

    @field_validator("issuers", mode="after")
    @classmethod
    def _complete(cls, issuers: tuple[Issuer, ...], info: ValidationInfo) -> tuple[Issuer, ...]:
        unique(tuple(one.issuer for one in issuers))
        if len(asked := [one.issuer for one in issuers if one.introspection]) > 1:
            raise ValueError(
                f"{' and '.join(asked)} both have introspection: an opaque token does not say whose it is",
                "keep it for one; verify the tokens of the other by its keys",
            )
        resource = info.data.get("resource", "")
        return tuple(one if one.audience else one.model_copy(update={"audience": (resource,)}) for one in issuers)

    @property
    def introspecting(self) -> Issuer | None:
        """The issuer that is asked about opaque tokens."""
        return next((one for one in self.issuers if one.introspection), None)

    def expand(self, scopes: frozenset[str]) -> frozenset[str]:
        """These scopes and all that they imply, directly or through others."""
        if not self.scope_implies:
            return scopes
        found, open_ = set(scopes), list(scopes)
        while open_:
            new = set(self.scope_implies.get(open_.pop(), ())) - found
            found |= new
            open_ += new
        return frozenset(found)
