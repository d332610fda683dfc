from __future__ import annotations

from pathlib import Path

import pytest

from gateway.routes import Backend, ConfigError, parse

SECRET = "s3cr3t-canary"


def backend_of(text: str, **environ: str) -> Backend:
    return parse(f"routes: [{{name: a, backend: {text}}}]", source="x", environ=environ).routes[0].backend


def test_a_bearer_token_becomes_a_header_in_the_clear_only_there() -> None:
    backend = backend_of("{url: 'http://a', credentials: {bearer: '${TOKEN}'}}", TOKEN=SECRET)
    assert backend.credentials is not None
    assert backend.credentials.headers() == (("Authorization", f"Bearer {SECRET}"),)
    shown = (repr(backend), str(backend.model_dump()), backend.model_dump_json(), str(backend.credentials))
    assert [text for text in shown if SECRET in text] == []


def test_headers_are_taken_by_name() -> None:
    backend = backend_of("{url: 'http://a', credentials: {header: {X-Api-Key: 'v1 ${KEY}'}}}", KEY="k")
    assert backend.credentials is not None
    assert backend.credentials.headers() == (("X-Api-Key", "v1 k"),)


def test_the_environment_of_a_program_holds_plain_values_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(SECRET)
    backend = backend_of(f"{{command: [x], env: {{TZ: UTC, TOKEN: 'file:{tmp_path}/s', URL: 'a-${{B}}'}}}}", B="b")
    assert backend.env == {"TZ": "UTC", "TOKEN": SECRET, "URL": "a-b"}
    assert SECRET not in repr(backend) + str(backend.model_dump()) + backend.model_dump_json()


def test_backends_with_other_secrets_are_not_equal() -> None:
    text = "{command: [x], env: {TOKEN: '${T}'}}"
    assert backend_of(text, T="a") != backend_of(text, T="b")
    assert backend_of(text, T="a") == backend_of(text, T="a")


def test_a_url_takes_references() -> None:
    assert backend_of("{url: 'http://${HOST}:9000/mcp'}", HOST="h").url == "http://h:9000/mcp"


@pytest.mark.parametrize(
    ("era", "read"),
    [
        ("auto", "auto"),
        ("modern", "modern"),
        ("legacy", "legacy"),
        ("2026-07-28", "modern"),
        ("2025-11-25", "legacy"),
        ("2025-06-18", "legacy"),
        ("2025-03-26", "legacy"),
        ("2024-11-05", "legacy"),
    ],
)
def test_a_revision_stands_for_its_era(era: str, read: str) -> None:
    assert backend_of(f"{{url: 'http://a', era: {era}}}").era == read


def test_a_session_can_be_said() -> None:
    assert backend_of("{command: [x], session: client}").session == "client"


def test_no_problem_shows_a_secret() -> None:
    bad = (
        "{url: 'ftp://${T}', transport: x, credentials: {bearer: '${T}', header: {A: '${T}', a: '${T}'}, more: '${T}'}}"
    )
    with pytest.raises(ConfigError) as caught:
        backend_of(bad, T=SECRET)
    assert SECRET not in str(caught.value) + repr(caught.value.problems)


def test_an_inline_secret_is_not_shown_either() -> None:
    with pytest.raises(ConfigError, match="never inline") as caught:
        backend_of(f"{{url: 'http://a', credentials: {{bearer: {SECRET}}}}}")
    assert SECRET not in str(caught.value)
