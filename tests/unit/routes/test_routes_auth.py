from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes import Auth, ConfigError, parse


def auth_of(text: str, **environ: str) -> Auth:
    routes = parse(f"routes: [{{name: a, backend: {{url: 'http://a'}}}}]\nauth:\n{text}", source="x", environ=environ)
    assert routes.auth is not None
    return routes.auth


SMALL = "  resource: https://mcp.example.com/mcp\n  issuers: [{issuer: 'https://idp.example.com'}]\n"


def test_the_defaults_of_an_issuer() -> None:
    (issuer,) = auth_of(SMALL).issuers
    assert issuer.model_dump() == {
        "issuer": "https://idp.example.com",
        "audience": ("https://mcp.example.com/mcp",),
        "jwks_uri": None,
        "jwks_file": None,
        "algorithms": ("RS256", "ES256", "EdDSA"),
        "scope_claims": ("scope", "scp", "scopes"),
        "client_claims": ("client_id", "azp", "appid", "cid"),
        "subject_claim": "sub",
        "introspection": None,
    }


def test_the_defaults_of_keys_and_clocks_are_in_seconds() -> None:
    auth = auth_of(SMALL)
    assert (auth.leeway, auth.jwks.ttl, auth.jwks.cooldown, auth.jwks.stale) == (30.0, 600.0, 30.0, 21_600.0)


def test_an_audience_is_one_or_a_list_and_replaces_the_resource() -> None:
    text = "  resource: https://r.example\n  issuers:\n    - {issuer: 'https://a.example', audience: api://one}\n"
    text += "    - {issuer: 'https://b.example', audience: [x, y]}\n"
    assert [issuer.audience for issuer in auth_of(text).issuers] == [("api://one",), ("x", "y")]


def test_urls_and_audiences_take_references() -> None:
    text = "  resource: 'https://${HOST}/mcp'\n  issuers: [{issuer: '${ISSUER}', audience: ['${AUD}']}]\n"
    auth = auth_of(text, HOST="m.example", ISSUER="https://i.example", AUD="me")
    assert (auth.resource, auth.issuers[0].issuer, auth.issuers[0].audience) == (
        "https://m.example/mcp",
        "https://i.example",
        ("me",),
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_an_issuer_on_a_loopback_address_may_be_plain_http(host: str) -> None:
    text = f"  resource: https://r.example\n  issuers: [{{issuer: 'http://{host}:8000'}}]\n"
    assert auth_of(text).issuers[0].issuer == f"http://{host}:8000"


def test_a_key_set_file_that_is_there_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text("{}")
    text = f"  resource: https://r.example\n  issuers: [{{issuer: 'https://a.example', jwks_file: {file}}}]\n"
    assert auth_of(text).issuers[0].jwks_file == str(file)


def test_a_key_set_has_one_source(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text("{}")
    both = f"jwks_file: {file}, jwks_uri: 'https://a.example/jwks'"
    text = f"  resource: https://r.example\n  issuers: [{{issuer: 'https://a.example', {both}}}]\n"
    with pytest.raises(ConfigError, match="has both jwks_uri and jwks_file"):
        auth_of(text)


ASKED = "{url: 'https://a.example/i', client_id: gw, client_secret: '${SECRET}'}"


def test_an_issuer_that_is_asked_has_keys_only_where_it_says_so() -> None:
    text = "  resource: https://r.example\n  issuers: [{{issuer: 'https://a.example', introspection: {}{}}}]\n"
    (asked,) = auth_of(text.format(ASKED, ""), SECRET="s3cret").issuers
    (both,) = auth_of(text.format(ASKED, ", jwks_uri: 'https://a.example/k'"), SECRET="s3cret").issuers
    assert (asked.has_keys, both.has_keys) == (False, True)
    assert asked.introspection is not None
    assert (asked.introspection.ttl, asked.introspection.client_secret.get_secret_value()) == (30.0, "s3cret")
    assert "s3cret" not in repr(asked)


def test_a_secret_in_clear_and_a_plain_endpoint_are_refused() -> None:
    bad = ASKED.replace("${SECRET}", "s3cret").replace("https:", "http:")
    text = f"  resource: https://r.example\n  issuers: [{{issuer: 'https://a.example', introspection: {bad}}}]\n"
    with pytest.raises(ConfigError) as caught:
        auth_of(text)
    assert "secrets are never inline" in str(caught.value)
    assert "must be an https URL" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_one_issuer_alone_is_asked_about_opaque_tokens() -> None:
    entries = "".join(f"    - {{issuer: 'https://{name}.example', introspection: {ASKED}}}\n" for name in "ab")
    with pytest.raises(ConfigError, match="an opaque token does not say whose it is"):
        auth_of(f"  resource: https://r.example\n  issuers:\n{entries}", SECRET="s")


def test_scopes_imply_others_directly_and_through_others() -> None:
    auth = auth_of(SMALL + "  scope_implies: {a: [b], b: [c, d], d: [a]}\n")
    assert auth.expand(frozenset({"b"})) == {"a", "b", "c", "d"}
    assert auth.expand(frozenset({"x"})) == {"x"}
    assert auth.expand(frozenset()) == frozenset()


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.sets(NAMES)), st.frozensets(NAMES), st.frozensets(NAMES))
def test_expansion_keeps_what_was_given_and_is_done_in_one_go(
    implies: dict[str, set[str]], scopes: frozenset[str], more: frozenset[str]
) -> None:
    auth = auth_of(SMALL).model_copy(update={"scope_implies": {name: tuple(to) for name, to in implies.items()}})
    expanded = auth.expand(scopes)
    assert scopes <= expanded
    assert auth.expand(expanded) == expanded
    assert expanded | auth.expand(more) == auth.expand(scopes | more)
