"""Which tokens make a principal, and which of the many others do not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway import tokens
from gateway.devtokens import DevIssuer
from gateway.errors import IssuerUnavailable, Unauthenticated
from gateway.policy import authenticate
from gateway.policy.authenticate import TokenAuthenticator
from gateway.routes import Auth
from gateway.tokens import ALGORITHMS, MAX_TOKEN

NOW = 1_800_000_000
ISSUER = "https://idp.example.com"
OTHER_ISSUER = "https://other.example.com/tenant"
AUDIENCE = "https://mcp.example.com/mcp"

IDP = DevIssuer.create(ISSUER, algorithm="ES256", clock=lambda: NOW)
RSA = DevIssuer.create(ISSUER, algorithm="RS256", clock=lambda: NOW)
ED = DevIssuer.create(ISSUER, algorithm="EdDSA", clock=lambda: NOW)
OTHER = DevIssuer.create(OTHER_ISSUER, algorithm="EdDSA", clock=lambda: NOW)
STRANGER = DevIssuer.create(ISSUER, algorithm="ES256", clock=lambda: NOW)


def auth(**changes: Any) -> Auth:
    issuers = [
        {"issuer": ISSUER, "algorithms": ["RS256", "ES256", "EdDSA"]},
        {"issuer": OTHER_ISSUER, "algorithms": ["EdDSA"], "subject_claim": "uid", "scope_claims": ["roles"]},
    ]
    return Auth.model_validate({"resource": AUDIENCE, "issuers": issuers, "leeway": "30s"} | changes)


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Keys:
    """Answers like a key store, and counts."""

    generation: int = 0
    asked: list[tuple[str, str | None, str]] = field(default_factory=list)
    missing: bool = False
    entries: list[tuple[str, str, Any]] = field(
        default_factory=lambda: [(each.issuer, each.kid, each.key.public_key()) for each in (IDP, RSA, ED, OTHER)]
    )

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        self.asked.append((issuer, kid, algorithm))
        if self.missing:
            raise IssuerUnavailable("away")
        return [key for name, its_kid, key in self.entries if name == issuer and kid in (None, its_kid)]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, by: DevIssuer = IDP) -> str:
    """A token of exactly these bytes with a signature that is right."""
    text = f"{b64(header)}.{b64(payload)}"
    scheme = jwt.get_algorithm_by_name(by.algorithm)
    return f"{text}.{b64(scheme.sign(text.encode(), by.key))}"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; ``...`` takes one away."""
    good = {"iss": ISSUER, "sub": "ada", "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW, "scope": "a b"}
    return {name: value for name, value in (good | changes).items() if value is not ...}


def token(by: DevIssuer = IDP, header: dict[str, Any] | None = None, **changes: Any) -> str:
    head = {"alg": by.algorithm, "kid": by.kid, "typ": "at+jwt"} | (header or {})
    head = {name: value for name, value in head.items() if value is not ...}
    return signed(json.dumps(head).encode(), json.dumps(claims(**changes)).encode(), by)


def hmac_token(secret: bytes, algorithm: str = "HS256") -> str:
    head, body = json.dumps({"alg": algorithm, "kid": RSA.kid}).encode(), json.dumps(claims()).encode()
    text = f"{b64(head)}.{b64(body)}"
    return f"{text}.{b64(jwt.get_algorithm_by_name(algorithm).sign(text.encode(), secret))}"


def unsigned(algorithm: str) -> str:
    return f"{b64(json.dumps({'alg': algorithm}).encode())}.{b64(json.dumps(claims()).encode())}."


def with_payload(text: str) -> str:
    return signed(json.dumps({"alg": "ES256", "kid": IDP.kid}).encode(), text.encode())


def with_header(text: str) -> str:
    return signed(text.encode(), json.dumps(claims()).encode())


def resigned(change: Callable[[list[str]], list[str]]) -> str:
    return ".".join(change(token().split(".")))


def loose_bits(part: str) -> str:
    """The same bytes in another spelling: the unused bits of the last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]


def attempt(header: bytes | str | Sequence[bytes], **kwargs: Any) -> Any:
    values = header if isinstance(header, list | tuple) else [header.encode() if isinstance(header, str) else header]
    authenticator = TokenAuthenticator(
        kwargs.pop("auth", auth()), kwargs.pop("keys", Keys()), kwargs.pop("clock", Clock())
    )
    return authenticator(values)


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


PEM = RSA.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = RSA.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
JWK = json.dumps(RSA.jwks()["keys"][0]).encode()
GOOD = token()

BAD_TOKENS: list[tuple[str, str, str]] = [
    *((f"alg {name!r}", unsigned(name), "algorithm") for name in ("none", "None", "NONE", "nOnE", "none ", "", "null")),
    ("alg none with the good signature", token(header={"alg": "none"}), "algorithm"),
    ("alg absent", token(header={"alg": ...}), "algorithm"),
    ("alg null", token(header={"alg": None}), "algorithm"),
    ("alg a number", token(header={"alg": 256}), "algorithm"),
    ("alg a list", token(header={"alg": ["ES256"]}), "algorithm"),
    ("alg in lower case", token(header={"alg": "es256"}), "algorithm"),
    ("alg that the issuer does not use", token(header={"alg": "PS256"}), "algorithm"),
    ("alg of a mere encryption", token(header={"alg": "RSA-OAEP", "enc": "A256GCM"}), "algorithm"),
    ("HS256 keyed with the public key as JWK", hmac_token(JWK), "algorithm"),
    ("HS256 keyed with the public key as DER", hmac_token(DER), "algorithm"),
    ("HS256 keyed with the modulus", hmac_token(RSA.jwks()["keys"][0]["n"].encode()), "algorithm"),
    ("HS512", hmac_token(JWK * 2, "HS512"), "algorithm"),
    ("alg of another family than the key's", token(header={"alg": "RS256"}), "bad_signature"),
    ("alg EdDSA with the kid of an EC key", token(ED, header={"kid": IDP.kid}), "bad_signature"),
    ("another key under the same kid", token(STRANGER, header={"kid": IDP.kid}), "bad_signature"),
    ("another key and no kid", token(STRANGER, header={"kid": ...}), "bad_signature"),
    ("a key nobody publishes", token(STRANGER), "unknown_key"),
    ("another issuer's key", token(OTHER), "unknown_key"),
    ("another issuer's key under our kid", token(OTHER, header={"kid": ED.kid}), "bad_signature"),
    ("kid a path", token(header={"kid": "../../../../dev/null"}), "unknown_key"),
    ("kid SQL", token(header={"kid": "x' UNION SELECT 'secret' --"}), "unknown_key"),
    ("kid a URL", token(header={"kid": "https://evil.example.com/key"}), "unknown_key"),
    ("kid huge", token(header={"kid": "k" * 5000}), "unknown_key"),
    ("kid empty", token(header={"kid": ""}), "unknown_key"),
    ("kid a number", token(header={"kid": 1}), "malformed"),
    ("kid null", token(header={"kid": None}), "malformed"),
    ("kid a list", token(header={"kid": [IDP.kid]}), "malformed"),
    ("jku", token(STRANGER, header={"kid": IDP.kid, "jku": "https://evil.example.com/jwks"}), "bad_signature"),
    ("x5u", token(STRANGER, header={"kid": IDP.kid, "x5u": "https://evil.example.com/x"}), "bad_signature"),
    ("jwk", token(STRANGER, header={"kid": IDP.kid, "jwk": STRANGER.jwks()["keys"][0]}), "bad_signature"),
    ("jwk without kid", token(STRANGER, header={"kid": ..., "jwk": STRANGER.jwks()["keys"][0]}), "bad_signature"),
    ("x5c", token(STRANGER, header={"kid": IDP.kid, "x5c": ["MIIB"]}), "bad_signature"),
    ("crit", token(header={"crit": ["exp"], "exp": 1}), "malformed"),
    ("crit empty", token(header={"crit": []}), "malformed"),
    ("crit with b64", token(header={"crit": ["b64"], "b64": True}), "malformed"),
    ("b64 false", token(header={"b64": False}), "malformed"),
    ("typ of a JWE", token(header={"typ": "JWE"}), "token_type"),
    ("typ of an ID token", token(header={"typ": "id+jwt"}), "token_type"),
    ("typ of a logout token", token(header={"typ": "logout+jwt"}), "token_type"),
    ("typ of a DPoP proof", token(header={"typ": "dpop+jwt"}), "token_type"),
    ("typ empty", token(header={"typ": ""}), "token_type"),
    ("typ null", token(header={"typ": None}), "malformed"),
    ("typ a number", token(header={"typ": 1}), "malformed"),
    ("header a list", with_header("[]"), "malformed"),
    ("header a text", with_header('"ES256"'), "malformed"),
    ("header not JSON", with_header("{alg: ES256}"), "malformed"),
    ("header with equal keys", with_header('{"alg":"none","alg":"ES256"}'), "malformed"),
    ("header with a BOM", with_header('\ufeff{"alg":"ES256"}'), "malformed"),
    ("header nested without end", with_header("[" * 5000), "malformed"),
    ("payload with equal keys", with_payload('{"iss":"https://idp.example.com","sub":"a","sub":"b"}'), "malformed"),
    ("payload with equal keys below", with_payload('{"iss":"https://idp.example.com","x":{"a":1,"a":2}}'), "malformed"),
    ("payload not an object", with_payload("[1]"), "malformed"),
    ("payload empty", with_payload(""), "malformed"),
    ("payload with something after", with_payload("{} {}"), "malformed"),
    ("payload with a lone surrogate", with_payload('{"iss":"https://idp.example.com","sub":"\\ud800"}'), "malformed"),
    ("payload that is not UTF-8", signed(b'{"alg":"ES256"}', b'{"iss":"\xff"}'), "malformed"),
    ("exp NaN", with_payload('{"iss":"https://idp.example.com","exp":NaN}'), "malformed"),
    ("exp Infinity", with_payload('{"iss":"https://idp.example.com","exp":Infinity}'), "malformed"),
    ("exp of 5000 digits", with_payload('{"iss":"https://idp.example.com","exp":1' + "0" * 5000 + "}"), "malformed"),
    ("exp 1e999", with_payload('{"iss":"https://idp.example.com","sub":"a","exp":1e999}'), "invalid_claim"),
    ("exp 10^40", token(exp=10**40), "invalid_claim"),
    ("exp in milliseconds", token(exp=(NOW + 600) * 1000), "invalid_claim"),
    ("exp negative", token(exp=-1), "invalid_claim"),
    ("exp a text", token(exp=str(NOW + 600)), "invalid_claim"),
    ("exp true", token(exp=True), "invalid_claim"),
    ("exp null", token(exp=None), "invalid_claim"),
    ("exp a list", token(exp=[NOW + 600]), "invalid_claim"),
    ("exp absent", token(exp=...), "missing_claim"),
    ("exp past", token(exp=NOW - 31), "expired"),
    ("exp past by the leeway exactly", token(exp=NOW - 30), "expired"),
    ("exp zero", token(exp=0), "expired"),
    ("nbf in the future", token(nbf=NOW + 31), "not_yet_valid"),
    ("nbf a text", token(nbf="0"), "invalid_claim"),
    ("nbf null", token(nbf=None), "invalid_claim"),
    ("iat in the future", token(iat=NOW + 31), "not_yet_valid"),
    ("iat a text", token(iat="0"), "invalid_claim"),
    ("iat false", token(iat=False), "invalid_claim"),
    ("aud absent", token(aud=...), "missing_claim"),
    ("aud another", token(aud="https://other.example.com/mcp"), "wrong_audience"),
    ("aud with a slash more", token(aud=AUDIENCE + "/"), "wrong_audience"),
    ("aud a part of ours", token(aud=AUDIENCE[:-1]), "wrong_audience"),
    ("aud empty", token(aud=""), "wrong_audience"),
    ("aud an empty list", token(aud=[]), "wrong_audience"),
    ("aud a nested list", token(aud=[[AUDIENCE]]), "invalid_claim"),
    ("aud a list with a number", token(aud=[AUDIENCE, 1]), "invalid_claim"),
    ("aud a number", token(aud=1), "invalid_claim"),
    ("aud an object", token(aud={AUDIENCE: 1}), "invalid_claim"),
    ("aud null", token(aud=None), "invalid_claim"),
    ("iss another", token(iss="https://evil.example.com"), "unknown_issuer"),
    ("iss with a slash more", token(iss=ISSUER + "/"), "unknown_issuer"),
    ("iss in capitals", token(iss=ISSUER.upper()), "unknown_issuer"),
    ("iss a list", token(iss=[ISSUER]), "invalid_claim"),
    ("iss null", token(iss=None), "invalid_claim"),
    ("iss empty", token(iss=""), "invalid_claim"),
    ("iss absent", token(iss=...), "missing_claim"),
    ("iss of another configured issuer", token(iss=OTHER_ISSUER), "algorithm"),
    ("sub absent", token(sub=...), "missing_claim"),
    ("sub empty", token(sub=""), "invalid_claim"),
    ("sub a number", token(sub=1), "invalid_claim"),
    ("sub null", token(sub=None), "invalid_claim"),
    ("sub a list", token(sub=["ada"]), "invalid_claim"),
    ("subject claim of the issuer absent", token(OTHER, iss=OTHER_ISSUER, sub="ada"), "missing_claim"),
    ("client_id a number", token(client_id=1), "invalid_claim"),
    ("azp empty", token(azp=""), "invalid_claim"),
    ("an ID token by nonce", token(nonce="n"), "token_type"),
    ("an ID token by at_hash", token(at_hash="h"), "token_type"),
    ("a security event", token(events={}), "token_type"),
    ("bound to a DPoP key", token(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}), "bound"),
    ("bound to a certificate", token(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}), "bound"),
    ("cnf null", token(cnf=None), "bound"),
    ("scope a number", token(scope=1), "invalid_claim"),
    ("scope null", token(scope=None), "invalid_claim"),
    ("scope an object", token(scope={"a": True}), "invalid_claim"),
    ("scope a list with a number", token(scope=["a", 1]), "invalid_claim"),
    ("scp wrong beside a good scope", token(scp=True), "invalid_claim"),
    (
        "signature of another payload",
        resigned(lambda p: [p[0], b64(json.dumps(claims(sub="root")).encode()), p[2]]),
        "bad_signature",
    ),
    ("signature cut", resigned(lambda p: [p[0], p[1], p[2][:80]]), "bad_signature"),
    ("signature empty", resigned(lambda p: [p[0], p[1], ""]), "bad_signature"),
    ("signature of zeros", resigned(lambda p: [p[0], p[1], b64(bytes(64))]), "bad_signature"),
    ("signature in other letters", resigned(lambda p: [p[0], p[1], loose_bits(p[2])]), "malformed"),
    ("signature padded", resigned(lambda p: [p[0], p[1], p[2] + "=="]), "malformed"),
    ("padding inside", resigned(lambda p: [p[0] + "=", p[1], p[2]]), "malformed"),
    ("whitespace inside", resigned(lambda p: [p[0], p[1][:5] + " " + p[1][5:], p[2]]), "malformed"),
    ("a line feed inside", resigned(lambda p: [p[0], p[1][:5] + "\n" + p[1][5:], p[2]]), "malformed"),
    ("the other alphabet", resigned(lambda p: [p[0], p[1], "+/" + p[2][2:]]), "malformed"),
    ("letters beyond ASCII", resigned(lambda p: [p[0], p[1], p[2][:-1] + "\u00e9"]), "malformed"),
    ("one part", "abc", "malformed"),
    ("two parts", resigned(lambda p: p[:2]), "malformed"),
    ("four parts", resigned(lambda p: [*p, "x"]), "malformed"),
    ("five parts", resigned(lambda p: [*p, "x", "y"]), "malformed"),
    ("empty parts", "..", "malformed"),
    ("no token", "", "malformed"),
    ("two tokens", f"{GOOD} {GOOD}", "malformed"),
    ("two spaces before", f" {GOOD}", "malformed"),
    ("a tab before", f"\t{GOOD}", "malformed"),
    ("a space after", f"{GOOD} ", "malformed"),
    ("a comma after", f"{GOOD}, Basic YTpi", "malformed"),
    ("too large", "a" * (MAX_TOKEN + 1), "too_large"),
    ("large and well formed", token(extra="x" * MAX_TOKEN), "too_large"),
]


@pytest.mark.parametrize(("text", "reason"), [case[1:] for case in BAD_TOKENS], ids=[case[0] for case in BAD_TOKENS])
async def test_a_bad_token_is_refused_for_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await attempt(bearer(text))
    assert caught.value.reason == reason
    assert caught.value.token_presented
    assert caught.value.status == 401


BAD_HEADERS: list[tuple[str, list[bytes], str, bool]] = [
    ("none", [], "missing_token", False),
    ("empty", [b""], "scheme", False),
    ("basic", [b"Basic YTpi"], "scheme", False),
    ("token scheme", [b"Token " + GOOD.encode()], "scheme", False),
    ("no scheme", [GOOD.encode()], "scheme", False),
    ("a leading space", [b" " + bearer(GOOD)], "scheme", False),
    ("a tab for the space", [b"Bearer\t" + GOOD.encode()], "scheme", False),
    ("glued", [b"Bearer" + GOOD.encode()], "scheme", False),
    ("scheme alone", [b"Bearer"], "malformed", True),
    ("scheme and a space", [b"Bearer "], "malformed", True),
    ("twice", [bearer(GOOD), bearer(GOOD)], "several_tokens", True),
    ("bearer and basic", [bearer(GOOD), b"Basic YTpi"], "several_tokens", True),
    ("bytes", [b"Bearer \xff\xfe\x00"], "malformed", True),
]


@pytest.mark.parametrize(
    ("values", "reason", "presented"), [case[1:] for case in BAD_HEADERS], ids=[case[0] for case in BAD_HEADERS]
)
async def test_a_bad_header_is_refused_and_says_whether_a_token_came(
    values: list[bytes], reason: str, presented: bool
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await attempt(values)
    assert (caught.value.reason, caught.value.token_presented) == (reason, presented)


async def test_hs256_keyed_with_the_public_pem_is_refused() -> None:
    # The library itself refuses to sign with a PEM, so the MAC is made by hand.
    import hashlib
    import hmac

    text = f"{b64(json.dumps({'alg': 'HS256', 'kid': RSA.kid}).encode())}.{b64(json.dumps(claims()).encode())}"
    mac = hmac.new(PEM, text.encode(), hashlib.sha256).digest()
    with pytest.raises(Unauthenticated) as caught:
        await attempt(bearer(f"{text}.{b64(mac)}"))
    assert caught.value.reason == "algorithm"


@given(st.lists(st.binary(max_size=200), max_size=3))
async def test_arbitrary_headers_are_unauthenticated_and_nothing_else(values: list[bytes]) -> None:
    with pytest.raises(Unauthenticated):
        await attempt(values)


@given(st.lists(st.binary(max_size=100), min_size=3, max_size=3))
async def test_arbitrary_parts_are_unauthenticated_and_nothing_else(parts: list[bytes]) -> None:
    with pytest.raises(Unauthenticated):
        await attempt(bearer(".".join(map(b64, parts))))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "scope", "client_id"]), value=JSON)
async def test_any_claim_of_any_type_makes_a_principal_or_a_refusal(name: str, value: Any) -> None:
    try:
        principal = await attempt(bearer(token(**{name: value})))
    except Unauthenticated:
        return
    assert principal.subject
    assert principal.issuer == ISSUER
    assert all(isinstance(scope, str) for scope in principal.scopes)


@given(name=st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5c"]), value=JSON)
async def test_any_header_of_any_type_makes_a_principal_or_a_refusal(name: str, value: Any) -> None:
    try:
        assert (await attempt(bearer(token(header={name: value})))).subject == "ada"
    except Unauthenticated:
        assert name not in {"jku", "jwk", "x5c"}


async def test_a_good_token_makes_a_principal() -> None:
    principal = await attempt(bearer(token(client_id="inspector", scope="b a", scp=["c"], scopes="")))
    assert principal.issuer == ISSUER
    assert principal.subject == "ada"
    assert principal.client_id == "inspector"
    assert principal.scopes == {"a", "b", "c"}
    assert principal.expires_at == NOW + 600 + 30


@pytest.mark.parametrize("by", [IDP, RSA, ED], ids=lambda by: by.algorithm)
async def test_every_kind_of_key_verifies(by: DevIssuer) -> None:
    assert (await attempt(bearer(by.mint("ada", ["a"], AUDIENCE)))).scopes == {"a"}


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt", ...])
async def test_the_types_of_access_tokens_are_accepted(kind: Any) -> None:
    assert (await attempt(bearer(token(header={"typ": kind})))).subject == "ada"


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER "])
async def test_the_scheme_is_read_in_any_case(scheme: bytes) -> None:
    assert (await attempt(scheme + GOOD.encode())).subject == "ada"


async def test_a_token_without_kid_is_tried_with_the_issuers_keys() -> None:
    assert (await attempt(bearer(token(header={"kid": ...})))).subject == "ada"


@pytest.mark.parametrize(("claim", "client"), [("client_id", "c"), ("azp", "c"), ("appid", "c"), ("cid", "c")])
async def test_the_client_is_known_by_any_of_its_claims(claim: str, client: str) -> None:
    assert (await attempt(bearer(token(**{claim: client})))).client_id == "c"


async def test_client_id_comes_before_azp() -> None:
    assert (await attempt(bearer(token(azp="other", client_id="c")))).client_id == "c"


async def test_the_client_is_known_by_the_claims_that_the_issuer_names() -> None:
    rules = auth(issuers=[{"issuer": ISSUER, "algorithms": ["ES256"], "client_claims": ["azp"]}])
    assert (await attempt(bearer(token(azp="agent", client_id=1)), auth=rules)).client_id == "agent"
    assert (await attempt(bearer(token(client_id="agent")), auth=rules)).client_id is None


async def test_one_of_several_audiences_is_enough() -> None:
    assert (await attempt(bearer(token(aud=["account", AUDIENCE])))).subject == "ada"


@pytest.mark.parametrize("exp", [NOW - 29, NOW + 0.5])
async def test_the_leeway_and_fractions_count(exp: float) -> None:
    assert (await attempt(bearer(token(exp=exp, nbf=NOW + 30, iat=NOW + 30)))).expires_at == exp + 30


async def test_each_issuer_has_its_own_claims() -> None:
    principal = await attempt(bearer(token(OTHER, iss=OTHER_ISSUER, uid="u1", roles=["r"], scope="not-read")))
    assert (principal.issuer, principal.subject, principal.scopes) == (OTHER_ISSUER, "u1", {"r"})


async def test_scopes_are_expanded_by_what_they_imply() -> None:
    rules = auth(scope_implies={"a": ["a:read"]})
    assert (await attempt(bearer(token(scope="a")), auth=rules)).scopes == {"a", "a:read"}


async def test_a_token_without_scopes_has_none() -> None:
    assert (await attempt(bearer(token(scope=...)))).scopes == frozenset()


async def test_keys_that_were_never_had_are_not_the_callers_fault() -> None:
    with pytest.raises(IssuerUnavailable):
        await attempt(bearer(GOOD), keys=Keys(missing=True))


async def test_no_message_repeats_anything_of_the_token() -> None:
    with pytest.raises(Unauthenticated) as caught:
        await attempt(bearer(token(iss="https://evil.example.com/marker", sub="marker")))
    assert "marker" not in str(caught.value)
    assert caught.value.rule == "auth.unknown_issuer"


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_no_configuration_can_allow_a_symmetric_algorithm_or_none(algorithm: str) -> None:
    good = auth()
    issuer = good.issuers[0].model_copy(update={"algorithms": ("none", "HS256", "ES256")})
    careless = good.model_copy(update={"issuers": (issuer,)})
    with pytest.raises(Unauthenticated) as caught:
        await attempt(bearer(hmac_token(JWK) if algorithm == "HS256" else unsigned("none")), auth=careless)
    assert caught.value.reason == "algorithm"


def test_every_reason_has_a_message() -> None:
    assert set(tokens.MESSAGES) == set(get_args(tokens.Reason))


def test_no_symmetric_algorithm_can_be_configured() -> None:
    assert not any(name.lower().startswith(("hs", "none")) for name in ALGORITHMS)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_development_issuer_keeps_its_key_in_a_private_file(tmp_path: Path, algorithm: Any) -> None:
    path = tmp_path / "key.pem"
    first = DevIssuer.create(ISSUER, path, algorithm=algorithm)
    again = DevIssuer.create(ISSUER, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (again.kid, again.algorithm, again.jwks()) == (first.kid, first.algorithm, first.jwks())
    assert not {"d", "p", "q", "k"} & set(first.jwks()["keys"][0])


class TestRemembering:
    async def test_a_known_token_is_not_verified_again(self) -> None:
        keys = Keys()
        authenticator = TokenAuthenticator(auth(), keys, Clock())
        first = await authenticator([bearer(GOOD)])
        assert await authenticator([bearer(GOOD)]) is first
        assert len(keys.asked) == 1

    async def test_a_token_that_was_accepted_is_known_until_it_expires_and_knowing_it_judges_nothing(self) -> None:
        clock, keys = Clock(), Keys()
        authenticator = TokenAuthenticator(auth(), keys, clock)
        header = bearer(token(exp=NOW + 600))
        assert not authenticator.remembers([header])
        await authenticator([header])
        keys.generation += 1
        clock.now = NOW + 629
        assert authenticator.remembers([header])
        assert not authenticator.remembers([header, header])
        assert not authenticator.remembers([])
        assert not authenticator.remembers([bearer(GOOD)])
        clock.now = NOW + 630
        assert not authenticator.remembers([header])
        assert len(keys.asked) == 1

    async def test_a_token_that_was_refused_is_not_known(self) -> None:
        authenticator = TokenAuthenticator(auth(), Keys(), Clock())
        header = bearer(token_with_bad_signature())
        with pytest.raises(Unauthenticated):
            await authenticator([header])
        assert not authenticator.remembers([header])

    async def test_it_is_refused_at_the_same_second_as_when_it_were_verified_anew(self) -> None:
        clock = Clock()
        authenticator = TokenAuthenticator(auth(), Keys(), clock)
        header = bearer(token(exp=NOW + 60))
        await authenticator([header])
        clock.now = NOW + 89.9
        await authenticator([header])
        clock.now = NOW + 90
        with pytest.raises(Unauthenticated) as caught:
            await authenticator([header])
        assert caught.value.reason == "expired"

    async def test_it_is_verified_anew_after_five_minutes(self) -> None:
        clock, keys = Clock(), Keys()
        authenticator = TokenAuthenticator(auth(), keys, clock)
        await authenticator([bearer(GOOD)])
        clock.now += 300
        await authenticator([bearer(GOOD)])
        assert len(keys.asked) == 2

    async def test_it_is_refused_as_soon_as_its_key_is_withdrawn(self) -> None:
        keys = Keys()
        authenticator = TokenAuthenticator(auth(), keys, Clock())
        await authenticator([bearer(GOOD)])
        keys.entries.clear()
        keys.generation += 1
        with pytest.raises(Unauthenticated) as caught:
            await authenticator([bearer(GOOD)])
        assert caught.value.reason == "unknown_key"

    async def test_a_bad_token_costs_one_verification_in_ten_seconds(self) -> None:
        clock, keys = Clock(), Keys()
        authenticator = TokenAuthenticator(auth(), keys, clock)
        refusals = []
        for clock.now in (NOW, NOW + 9.9, NOW + 10):
            with pytest.raises(Unauthenticated) as caught:
                await authenticator([bearer(token_with_bad_signature())])
            refusals.append(caught.value)
        assert len(keys.asked) == 2
        assert len(set(map(id, refusals))) == 3
        assert {refusal.reason for refusal in refusals} == {"bad_signature"}

    @pytest.mark.parametrize("text", [token(STRANGER), token(nbf=NOW + 35)], ids=["unknown key", "not yet valid"])
    async def test_what_time_or_new_keys_can_heal_is_not_remembered(self, text: str) -> None:
        keys, clock = Keys(), Clock()
        authenticator = TokenAuthenticator(auth(), keys, clock)
        with pytest.raises(Unauthenticated):
            await authenticator([bearer(text)])
        keys.entries.append((ISSUER, STRANGER.kid, STRANGER.key.public_key()))
        clock.now += 5
        assert (await authenticator([bearer(text)])).subject == "ada"

    async def test_a_refusal_is_forgotten_when_keys_change(self) -> None:
        keys = Keys(entries=[(ISSUER, IDP.kid, STRANGER.key.public_key())])
        authenticator = TokenAuthenticator(auth(), keys, Clock())
        with pytest.raises(Unauthenticated):
            await authenticator([bearer(GOOD)])
        keys.entries[0] = (ISSUER, IDP.kid, IDP.key.public_key())
        keys.generation += 1
        assert (await authenticator([bearer(GOOD)])).subject == "ada"

    async def test_memory_is_bounded_and_the_least_recently_used_goes_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(authenticate, "_MAX_VERIFIED", 2)
        keys = Keys()
        authenticator = TokenAuthenticator(auth(), keys, Clock())
        a, b, c = (bearer(ED.mint(name, [], AUDIENCE)) for name in "abc")
        for header in (a, b, a, c, a, b):
            await authenticator([header])
        assert len(keys.asked) == 4


def token_with_bad_signature() -> str:
    return next(text for name, text, _ in BAD_TOKENS if name == "signature of zeros")


async def test_a_token_for_a_toolset_is_bound_to_it() -> None:
    principal = await attempt(bearer(token(aud=["account", f"{AUDIENCE}/oncall", f"{AUDIENCE}/raw"])))
    assert principal.toolsets == {"oncall", "raw"}


async def test_a_token_for_the_whole_gateway_is_bound_to_no_toolset() -> None:
    assert (await attempt(bearer(token(aud=[f"{AUDIENCE}/oncall", AUDIENCE])))).toolsets is None


OPAQUE_ISSUER = "https://opaque.example.com"
ASKED = {"url": f"{OPAQUE_ISSUER}/introspect", "client_id": "gw", "client_secret": "${S}", "ttl": "20s"}


def asking(**issuer: Any) -> Auth:
    """Beside an issuer with keys, one that is asked about its tokens."""
    entry = {"issuer": OPAQUE_ISSUER, "introspection": ASKED} | issuer
    issuers = [{"issuer": ISSUER, "algorithms": ["RS256", "ES256", "EdDSA"]}, entry]
    document = {"resource": AUDIENCE, "issuers": issuers}
    return Auth.model_validate(document, context={"environ": {"S": "s3cret"}})


@dataclass
class Asked:
    """An issuer's introspection: what it says is set, what it was asked is kept."""

    says: Any = field(default_factory=lambda: claims(iss=OPAQUE_ISSUER, active=True))
    tokens: list[bytes] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)

    async def __call__(self, text: bytes, *, known: bool = False) -> Any:
        self.tokens.append(text)
        self.known.append(known)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class TestAskingTheIssuer:
    def authenticator(self, asked: Asked, clock: Clock | None = None, **issuer: Any) -> TokenAuthenticator:
        return TokenAuthenticator(asking(**issuer), Keys(), clock or Clock(), introspect=asked)

    async def test_an_opaque_token_is_what_its_issuer_says(self) -> None:
        asked = Asked()
        principal = await self.authenticator(asked)([bearer("opaque-1")])
        assert (principal.issuer, principal.subject, principal.scopes) == (OPAQUE_ISSUER, "ada", {"a", "b"})
        assert principal.expires_at == NOW + 600 + 30
        assert asked.tokens == [b"opaque-1"]

    async def test_an_inactive_token_is_refused_and_not_asked_about_for_ten_seconds(self) -> None:
        asked, clock = Asked(None), Clock()
        authenticator = self.authenticator(asked, clock)
        for clock.now in (NOW, NOW + 9.9, NOW + 10):
            with pytest.raises(Unauthenticated) as caught:
                await authenticator([bearer("opaque")])
            assert caught.value.reason == "inactive"
        assert len(asked.tokens) == 2

    async def test_a_revoked_token_is_refused_after_ttl_at_the_latest(self) -> None:
        asked, clock = Asked(), Clock()
        authenticator = self.authenticator(asked, clock)
        await authenticator([bearer("opaque")])
        asked.says = None
        clock.now = NOW + 19.9
        await authenticator([bearer("opaque")])
        clock.now = NOW + 20
        with pytest.raises(Unauthenticated):
            await authenticator([bearer("opaque")])
        assert len(asked.tokens) == 2

    async def test_a_token_that_was_accepted_is_asked_about_before_new_ones(self) -> None:
        asked, clock = Asked(), Clock()
        authenticator = self.authenticator(asked, clock)
        for clock.now, text in ((NOW, "old"), (NOW + 20, "old"), (NOW + 20, "new")):
            await authenticator([bearer(text)])
        asked.says = None
        for clock.now in (NOW + 40, NOW + 60):
            with pytest.raises(Unauthenticated):
                await authenticator([bearer("made-up")])
        assert asked.known == [False, True, False, False, False]

    async def test_an_answer_holds_no_longer_than_the_token(self) -> None:
        asked, clock = Asked(claims(exp=NOW - 20)), Clock()
        asked.says["iss"] = OPAQUE_ISSUER
        authenticator = self.authenticator(asked, clock)
        await authenticator([bearer("opaque")])
        clock.now = NOW + 10
        with pytest.raises(Unauthenticated) as caught:
            await authenticator([bearer("opaque")])
        assert caught.value.reason == "expired"

    async def test_an_outage_is_no_refusal_and_is_not_remembered(self) -> None:
        asked = Asked(IssuerUnavailable("away"))
        authenticator = self.authenticator(asked)
        for _ in range(2):
            with pytest.raises(IssuerUnavailable):
                await authenticator([bearer("opaque")])
        asked.says = claims(iss=OPAQUE_ISSUER)
        assert (await authenticator([bearer("opaque")])).subject == "ada"

    async def test_without_iss_and_exp_the_answer_is_of_whom_was_asked_and_holds_for_ttl(self) -> None:
        principal = await self.authenticator(Asked(claims(iss=..., exp=...)))([bearer("opaque")])
        assert (principal.issuer, principal.expires_at) == (OPAQUE_ISSUER, NOW + 20 + 30)

    @pytest.mark.parametrize(
        ("says", "reason"),
        [
            (claims(iss=ISSUER), "unknown_issuer"),
            (claims(iss=None), "unknown_issuer"),
            (claims(iss=..., aud="https://other.example.com"), "wrong_audience"),
            (claims(iss=..., aud=...), "missing_claim"),
            (claims(iss=..., sub=...), "missing_claim"),
            (claims(iss=..., exp=NOW - 31), "expired"),
            (claims(iss=..., exp="soon"), "invalid_claim"),
            (claims(iss=..., nbf=NOW + 31), "not_yet_valid"),
            (claims(iss=..., scope=1), "invalid_claim"),
            (claims(iss=..., nonce="n"), "token_type"),
            (claims(iss=..., cnf={"jkt": "x"}), "bound"),
            ({}, "missing_claim"),
        ],
    )
    async def test_what_an_issuer_says_is_checked_like_a_token(self, says: Any, reason: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            await self.authenticator(Asked(says))([bearer("opaque")])
        assert caught.value.reason == reason

    @pytest.mark.parametrize(("text", "reason"), [case[1:] for case in BAD_TOKENS if case[1].startswith("eyJ")])
    async def test_a_jwt_of_an_issuer_with_keys_is_never_asked_about(self, text: str, reason: str) -> None:
        asked = Asked()
        if text.count(".") != 2:
            return
        with pytest.raises(Unauthenticated) as caught:
            await self.authenticator(asked)([bearer(text)])
        assert asked.tokens == []
        assert caught.value.reason in {reason, "unknown_issuer", "missing_claim", "invalid_claim", "malformed"}

    async def test_a_good_jwt_of_an_issuer_with_keys_is_verified_by_them(self) -> None:
        asked = Asked()
        assert (await self.authenticator(asked)([bearer(GOOD)])).issuer == ISSUER
        assert asked.tokens == []

    async def test_a_jwt_of_the_issuer_that_is_asked_is_asked_about_unless_it_has_keys(self) -> None:
        text = DevIssuer.create(OPAQUE_ISSUER, clock=lambda: NOW).mint("eve", [], AUDIENCE)
        asked = Asked()
        assert (await self.authenticator(asked)([bearer(text)])).subject == "ada"
        with pytest.raises(Unauthenticated) as caught:
            await self.authenticator(asked, jwks_uri=f"{OPAQUE_ISSUER}/keys")([bearer(text)])
        assert caught.value.reason == "unknown_key"
        assert asked.tokens == [text.encode()]

    @pytest.mark.parametrize(
        "text", ["a b", "a\tb", "t\u00f6ken", "=", "a=b", "a,b", "a%20b", 'a"b', "a" * (MAX_TOKEN + 1)]
    )
    async def test_what_is_no_token_is_not_asked_about(self, text: str) -> None:
        asked = Asked()
        with pytest.raises(Unauthenticated) as caught:
            await self.authenticator(asked)([bearer(text)])
        assert caught.value.reason in {"malformed", "too_large"}
        assert asked.tokens == []

    async def test_nothing_opaque_is_accepted_where_no_issuer_is_asked(self) -> None:
        with pytest.raises(Unauthenticated) as caught:
            await attempt(bearer("opaque"))
        assert caught.value.reason == "malformed"


async def test_a_principal_comes_with_its_token_only_while_some_route_exchanges_it() -> None:
    authenticator = TokenAuthenticator(auth(), Keys(), Clock())
    header = bearer(GOOD)
    assert (await authenticator([header])).token == b""
    authenticator.keep_tokens(kept=True)
    principal = await authenticator([header])
    assert b"Bearer " + principal.token == header
    assert principal == replace(principal, token=b"")
    assert principal is await authenticator([header])
    assert principal.token.decode() not in repr(principal)
    authenticator.keep_tokens(kept=False)
    assert (await authenticator([header])).token == b""
