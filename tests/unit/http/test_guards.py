"""Who may reach the endpoint from a browser, and what is no request at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Forbidden, InvalidRequest, Refusal
from gateway.http.guards import BrowserGuard, accepts, check_framing, is_loopback, too_large

LOCAL = BrowserGuard("127.0.0.1", (), ())
LOCAL_NAMED = BrowserGuard("127.0.0.1", ("mcp.example.com",), ("https://app.example.com/",))
PUBLIC = BrowserGuard("0.0.0.0", (), ())
NAMED = BrowserGuard("0.0.0.0", ("mcp.example.com", "Other.example.com:8443"), ("https://app.example.com",))


def status(
    guard: BrowserGuard, host: str | None, origin: str | None = None, repeated: frozenset[str] = frozenset()
) -> int:
    headers = {name: value for name, value in (("host", host), ("origin", origin)) if value is not None}
    try:
        guard.check(headers, repeated)
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "local", "local_named", "public", "named"),
    [
        ("localhost", 200, 200, 200, 421),
        ("localhost:8080", 200, 200, 200, 421),
        ("LOCALHOST:8080", 200, 200, 200, 421),
        ("127.0.0.1:8080", 200, 200, 200, 421),
        ("[::1]:8080", 200, 200, 200, 421),
        ("[::1]", 200, 200, 200, 421),
        ("mcp.example.com", 421, 200, 200, 200),
        ("MCP.Example.COM", 421, 200, 200, 200),
        ("mcp.example.com:443", 421, 200, 200, 200),
        ("other.example.com:8443", 421, 421, 200, 200),
        ("other.example.com", 421, 421, 200, 421),
        ("other.example.com:1", 421, 421, 200, 421),
        ("evil.example.com", 421, 421, 200, 421),
        ("localhost.evil.example", 421, 421, 200, 421),
        ("mcp.example.com.evil.example", 421, 421, 200, 421),
        ("127.0.0.1.evil.example", 421, 421, 200, 421),
        ("evil.example/localhost", 421, 421, 200, 421),
        ("evil.example:localhost", 421, 421, 200, 421),
        ("[::1]evil.example", 421, 421, 200, 421),
        ("[localhost]", 421, 421, 200, 421),
        ("localhost:80@evil.example", 421, 421, 200, 421),
        ("mcp.example.com:x", 421, 421, 200, 421),
        ("", 421, 421, 200, 421),
    ],
)
def test_a_host_is_accepted_where_it_is_loopback_or_configured(
    host: str, local: int, local_named: int, public: int, named: int
) -> None:
    found = [status(guard, host) for guard in (LOCAL, LOCAL_NAMED, PUBLIC, NAMED)]
    assert found == [local, local_named, public, named]


@pytest.mark.parametrize("guard", [LOCAL, PUBLIC, NAMED])
def test_a_request_has_exactly_one_host(guard: BrowserGuard) -> None:
    assert status(guard, None) == 400
    assert status(guard, "mcp.example.com", repeated=frozenset({"host"})) == 400


def test_a_host_that_was_refused_stays_refused_and_one_that_passed_passes() -> None:
    guard = BrowserGuard("127.0.0.1", (), ())
    assert [status(guard, host) for host in ("localhost", "evil", "localhost", "evil")] == [200, 421, 200, 421]


@pytest.mark.parametrize(
    ("origin", "local", "local_named", "public", "named"),
    [
        (None, 200, 200, 200, 200),
        ("http://localhost", 200, 200, 403, 403),
        ("http://localhost:3000", 200, 200, 403, 403),
        ("http://127.0.0.1:3000", 200, 200, 403, 403),
        ("http://[::1]:3000", 200, 200, 403, 403),
        ("https://app.example.com", 403, 200, 403, 200),
        ("https://APP.example.com", 403, 200, 403, 200),
        ("http://app.example.com", 403, 403, 403, 403),
        ("https://app.example.com:8443", 403, 403, 403, 403),
        ("https://app.example.com.evil.example", 403, 403, 403, 403),
        ("https://evil.example", 403, 403, 403, 403),
        ("http://localhost.evil.example", 403, 403, 403, 403),
        ("http://localhost@evil.example", 403, 403, 403, 403),
        ("null", 403, 403, 403, 403),
        ("", 403, 403, 403, 403),
        ("localhost", 403, 403, 403, 403),
        ("file://", 403, 403, 403, 403),
    ],
)
def test_a_web_origin_is_accepted_where_it_is_loopback_on_loopback_or_configured(
    origin: str | None, local: int, local_named: int, public: int, named: int
) -> None:
    hosts = ["localhost", "localhost", "any.example", "mcp.example.com"]
    guards = [LOCAL, LOCAL_NAMED, PUBLIC, NAMED]
    found = [status(guard, host, origin) for guard, host in zip(guards, hosts, strict=True)]
    assert found == [local, local_named, public, named]


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:1@evil.example",
        "http://localhost:x",
        "http://[::1",
        "http://[localhost]",
        "javascript://localhost",
        "http://localhost/evil",
    ],
)
def test_what_is_no_loopback_origin_is_foreign(origin: str) -> None:
    assert status(LOCAL, "localhost", origin) == 403


def test_two_origins_are_none() -> None:
    assert status(LOCAL, "localhost", "http://localhost", frozenset({"origin"})) == 403


def test_a_foreign_origin_is_a_403_whatever_the_host_says() -> None:
    with pytest.raises(Forbidden):
        LOCAL.check({"host": "localhost", "origin": "https://evil.example"}, frozenset())


def test_an_allowed_browser_is_told_so_and_may_read_what_clients_need() -> None:
    headers = dict(NAMED.cors("https://app.example.com"))
    assert headers[b"access-control-allow-origin"] == b"https://app.example.com"
    assert headers[b"vary"] == b"origin"
    exposed = {name.strip() for name in headers[b"access-control-expose-headers"].split(b",")}
    assert exposed >= {b"mcp-session-id", b"www-authenticate", b"retry-after", b"x-request-id"}
    assert b"access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "*", ""])
def test_nobody_else_is_told_anything(origin: str | None) -> None:
    assert NAMED.cors(origin) == []


@pytest.mark.parametrize(
    ("asked", "mirrors"),
    [
        ("content-type, mcp-param-region,Mcp-Param-Team", {"mcp-param-region", "mcp-param-team"}),
        ("", set()),
        ("x-evil, mcp-params, mcp-param-, mcp-param-a b, mcp-param-é, cookie", set()),
        ("mcp-param-" + "a" * 129, set()),
        ("mcp-param-a\r\nset-cookie: x", set()),
    ],
)
def test_a_preflight_allows_the_mirrors_of_arguments_that_are_asked_for_and_nothing_else(
    asked: str, mirrors: set[str]
) -> None:
    always, allowed = (_allowed(named) for named in ("", asked))
    assert allowed - always == mirrors


def _allowed(asked: str) -> set[str]:
    headers = dict(LOCAL.preflight("http://localhost:3000", asked))
    return {name.strip() for name in headers[b"access-control-allow-headers"].decode().split(",")}


def test_a_preflight_says_which_methods_and_headers_may_be_sent() -> None:
    headers = dict(LOCAL.preflight("http://localhost:3000"))
    assert headers[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert headers[b"access-control-allow-methods"] == b"GET, POST, DELETE"
    allowed = {name.strip() for name in headers[b"access-control-allow-headers"].split(b",")}
    assert allowed >= {
        b"authorization",
        b"content-type",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"mcp-method",
        b"mcp-name",
        b"last-event-id",
    }


# Framing

JSON = {"content-type": "application/json"}


def framing(headers: dict[str, str], repeated: frozenset[str] = frozenset()) -> int:
    try:
        check_framing(headers, repeated, 100)
    except InvalidRequest as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (JSON, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": " application/json ;x=y"}, 200),
        ({}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/jsonp"}, 415),
        ({"content-type": "application/json-rpc"}, 415),
        ({"content-type": "text/plain; application/json"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({**JSON, "content-encoding": "gzip"}, 415),
        ({**JSON, "content-encoding": ""}, 415),
        ({**JSON, "content-length": "0"}, 200),
        ({**JSON, "content-length": "100"}, 200),
        ({**JSON, "content-length": "101"}, 413),
        ({**JSON, "content-length": "9" * 30}, 413),
        ({**JSON, "content-length": "-1"}, 400),
        ({**JSON, "content-length": "+1"}, 400),
        ({**JSON, "content-length": "1_0"}, 400),
        ({**JSON, "content-length": "1, 1"}, 400),
        ({**JSON, "content-length": ""}, 400),
        ({**JSON, "content-length": "\u0661"}, 400),
        ({**JSON, "content-length": "\u00b2"}, 400),
        ({**JSON, "content-length": "5", "transfer-encoding": "chunked"}, 400),
        ({**JSON, "transfer-encoding": "chunked"}, 200),
    ],
)
def test_a_body_is_plain_json_of_a_clear_bounded_length(headers: dict[str, str], expected: int) -> None:
    assert framing(headers) == expected


@pytest.mark.parametrize("name", ["content-length", "content-type", "transfer-encoding"])
def test_a_header_that_describes_the_body_comes_once(name: str) -> None:
    assert framing(JSON, frozenset({name})) == 400
    assert framing(JSON, frozenset({"accept"})) == 200


def test_a_length_of_any_number_of_digits_is_too_large_and_nothing_worse() -> None:
    assert framing({**JSON, "content-length": "9" * 5000}) == 413


@given(st.dictionaries(st.sampled_from(["content-type", "content-length", "content-encoding", "host"]), st.text()))
def test_no_header_breaks_the_check(headers: dict[str, str]) -> None:
    assert framing(headers) in (200, 400, 413, 415)


def test_the_bound_is_told() -> None:
    assert (too_large(100).status, "100" in too_large(100).message) == (413, True)


@pytest.mark.parametrize(
    ("accept", "json", "stream"),
    [
        (None, True, True),
        ("application/json, text/event-stream", True, True),
        ("text/event-stream", False, True),
        ("application/json", True, False),
        ("*/*", True, True),
        ("application/*", True, False),
        ("text/*;q=0.5, application/json;q=0.1", True, True),
        ("APPLICATION/JSON", True, False),
        ("text/html", False, False),
        ("", False, False),
        ("application/jsonx", False, False),
    ],
)
def test_what_a_client_takes_is_read_from_its_accept(accept: str | None, json: bool, stream: bool) -> None:
    headers: dict[str, Any] = {} if accept is None else {"accept": accept}
    assert (accepts(headers, "application/json"), accepts(headers, "text/event-stream")) == (json, stream)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_a_loopback_address_reaches_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_long_names_of_hosts_are_not_remembered() -> None:
    guard = BrowserGuard("0.0.0.0", (), ())
    assert status(guard, "a" * 10_000) == 200
    assert guard._known_hosts == set()
