"""How a client learns where to get a token, and which."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InsufficientScope, Unauthenticated
from gateway.protocol.authorization import challenge, metadata_url, protected_resource_metadata
from gateway.routes import Auth


def auth(resource: str = "https://mcp.example.com/mcp", *issuers: str) -> Auth:
    listed = [{"issuer": issuer} for issuer in issuers or ("https://idp.example.com",)]
    return Auth.model_validate({"resource": resource, "issuers": listed})


def parsed(header: str) -> dict[str, str]:
    """The parameters, by the grammar of RFC 9110: quoted strings with escapes and nothing around them."""
    assert re.fullmatch(r'Bearer \w+="(?:[^"\\]|\\.)*"(?:, \w+="(?:[^"\\]|\\.)*")*', header), header
    assert header.isascii()
    assert header.isprintable()
    found = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', header)
    assert len(found) == len(dict(found))
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found}


def no_token() -> Unauthenticated:
    return Unauthenticated("This gateway needs an access token.", token_presented=False)


def bad_token(message: str = "The token has expired; get a new one.") -> Unauthenticated:
    return Unauthenticated(message, token_presented=True, reason="expired")


def lacking(*needed: str) -> InsufficientScope:
    return InsufficientScope("It needs more.", needed=frozenset(needed), missing=frozenset(needed[:1]), rule="")


def test_the_document_names_the_resource_and_its_authorization_servers() -> None:
    rules = auth("https://mcp.example.com/mcp", "https://b.example.com", "https://a.example.com/t")
    assert protected_resource_metadata(rules, None, ["b", "a", "b"]) == {
        "resource": "https://mcp.example.com/mcp",
        "authorization_servers": ["https://b.example.com", "https://a.example.com/t"],
        "scopes_supported": ["a", "b"],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcp-gateway",
    }


def test_a_toolset_is_a_resource_of_its_own() -> None:
    document = protected_resource_metadata(auth(), "oncall", [])
    assert document["resource"] == "https://mcp.example.com/mcp/oncall"
    assert "oncall" in document["resource_name"]


def test_a_document_without_scopes_has_no_empty_list() -> None:
    assert "scopes_supported" not in protected_resource_metadata(auth(), None, [])


def test_offline_access_is_never_advertised() -> None:
    assert protected_resource_metadata(auth(), None, ["offline_access", "a"])["scopes_supported"] == ["a"]
    assert parsed(challenge(no_token(), auth(), None, ["offline_access", "a"]))["scope"] == "a"


@pytest.mark.parametrize(
    ("resource", "toolset", "url"),
    [
        (
            "https://mcp.example.com/mcp",
            None,
            "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        ),
        (
            "https://mcp.example.com/mcp",
            "oncall",
            "https://mcp.example.com/.well-known/oauth-protected-resource/mcp/oncall",
        ),
        ("https://mcp.example.com", None, "https://mcp.example.com/.well-known/oauth-protected-resource"),
        ("https://mcp.example.com/", None, "https://mcp.example.com/.well-known/oauth-protected-resource"),
        ("http://127.0.0.1:8000/mcp", None, "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"),
        ("https://x.example.com/a/mcp", "t", "https://x.example.com/.well-known/oauth-protected-resource/a/mcp/t"),
    ],
)
def test_the_document_is_between_host_and_path(resource: str, toolset: str | None, url: str) -> None:
    assert metadata_url(auth(resource), toolset) == url


def test_without_a_token_the_challenge_has_no_error() -> None:
    assert challenge(no_token(), auth(), None, ["b", "a"]) == (
        'Bearer resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", scope="a b"'
    )


def test_a_token_that_is_not_accepted_is_an_invalid_token() -> None:
    parameters = parsed(challenge(bad_token(), auth(), "oncall", ["a"]))
    assert parameters == {
        "resource_metadata": "https://mcp.example.com/.well-known/oauth-protected-resource/mcp/oncall",
        "scope": "a",
        "error": "invalid_token",
        "error_description": "The token has expired; get a new one.",
    }


def test_a_lack_of_scope_names_all_that_are_needed_and_not_the_hint() -> None:
    parameters = parsed(challenge(lacking("deploy:write", "deploy:read"), auth(), None, ["hint"]))
    assert parameters["error"] == "insufficient_scope"
    assert parameters["scope"] == "deploy:read deploy:write"
    assert parameters["resource_metadata"].endswith("/.well-known/oauth-protected-resource/mcp")


def test_no_scope_to_hint_at_leaves_the_parameter_out() -> None:
    assert "scope" not in parsed(challenge(no_token(), auth(), None, []))


@given(message=st.text(max_size=60), scopes=st.lists(st.text(max_size=10), max_size=4), lacks=st.booleans())
def test_nothing_leaves_its_quoted_string(message: str, scopes: list[str], lacks: bool) -> None:
    refusal = lacking(*scopes) if lacks else bad_token(message)
    parameters = parsed(challenge(refusal, auth(), None, scopes))
    assert set(parameters) <= {"resource_metadata", "scope", "error", "error_description"}
    assert re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e ]*", parameters.get("scope", ""))


def test_a_line_break_in_a_message_makes_no_second_header() -> None:
    header = challenge(bad_token('x"\r\nSet-Cookie: a=b\\'), auth(), None, ['a", evil="1', "ok", "a\r\nb"])
    assert "\r" not in header
    assert "\n" not in header
    assert parsed(header)["scope"] == "ok"


def test_a_strange_toolset_stays_inside_its_quotes_too() -> None:
    header = challenge(no_token(), auth(), 'a"b\\c\u00e9\x7f', [])
    assert parsed(header) == {
        "resource_metadata": 'https://mcp.example.com/.well-known/oauth-protected-resource/mcp/a"b\\c'
    }
