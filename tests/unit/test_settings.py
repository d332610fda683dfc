from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import AuditSink, Settings

RAW = bytes(range(32))
KEY = base64.b64encode(RAW).decode()
OTHER = base64.urlsafe_b64encode(bytes(range(100, 132))).decode().rstrip("=")
REDIS = "redis://:s3cr3t-canary@redis:6379/0"


def problems_of(**environ: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ)
    assert all(problem.file == "environment" and problem.hint for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.load({})
    assert {name: getattr(settings, name) for name in Settings.model_fields} == {
        "config": Path("config/routes.yaml"),
        "host": "127.0.0.1",
        "port": 8080,
        "workers": 1,
        "redis_url": None,
        "on_redis_failure": "local",
        "expected_replicas": 1,
        "audit": (AuditSink("stdout"),),
        "on_audit_failure": "deny",
        "audit_durability": "write",
        "audit_max_bytes": None,
        "audit_max_age_seconds": None,
        "audit_keep": None,
        "audit_stream_length": None,
        "keys": (),
        "allowed_hosts": (),
        "allowed_origins": (),
        "trusted_proxies": (),
        "auth_failures_per_minute": 6000,
        "ops_port": None,
        "max_body_bytes": 4_194_304,
        "max_response_bytes": 16_777_216,
        "drain_delay_seconds": 5.0,
        "drain_seconds": 25.0,
        "header_timeout_seconds": 10.0,
        "body_timeout_seconds": 30.0,
        "log_level": "INFO",
        "metrics_token": None,
    }


def test_every_setting_is_read_from_its_variable() -> None:
    settings = Settings.load(
        {
            "GATEWAY_CONFIG": "/etc/gateway/routes.yaml",
            "GATEWAY_HOST": "0.0.0.0",
            "GATEWAY_PORT": "0",
            "GATEWAY_WORKERS": "2",
            "GATEWAY_REDIS_URL": REDIS,
            "GATEWAY_ON_REDIS_FAILURE": "closed",
            "GATEWAY_EXPECTED_REPLICAS": "3",
            "GATEWAY_AUDIT": "file:/var/audit.jsonl, stdout, redis:audit",
            "GATEWAY_ON_AUDIT_FAILURE": "allow",
            "GATEWAY_AUDIT_DURABILITY": "fsync",
            "GATEWAY_AUDIT_MAX_BYTES": "100000000",
            "GATEWAY_AUDIT_MAX_AGE_SECONDS": "86400",
            "GATEWAY_AUDIT_KEEP": "30",
            "GATEWAY_AUDIT_STREAM_LENGTH": "100000",
            "GATEWAY_KEYS": f"{KEY},{OTHER}",
            "GATEWAY_ALLOWED_HOSTS": "MCP.example.com, [::1]:8080",
            "GATEWAY_ALLOWED_ORIGINS": "https://app.example.com",
            "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "GATEWAY_AUTH_FAILURES_PER_MINUTE": "60",
            "GATEWAY_OPS_PORT": "9090",
            "GATEWAY_MAX_BODY_BYTES": "2048",
            "GATEWAY_MAX_RESPONSE_BYTES": "4096",
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
            "GATEWAY_DRAIN_SECONDS": "1.5",
            "GATEWAY_HEADER_TIMEOUT_SECONDS": "2",
            "GATEWAY_BODY_TIMEOUT_SECONDS": "3",
            "GATEWAY_LOG_LEVEL": "debug",
            "GATEWAY_METRICS_TOKEN": "m",
        }
    )
    defaults = Settings()
    assert [name for name in Settings.model_fields if getattr(settings, name) == getattr(defaults, name)] == []
    assert [str(sink) for sink in settings.audit] == ["file:/var/audit.jsonl", "stdout", "redis:audit"]
    assert settings.key_ring == (RAW, bytes(range(100, 132)))
    assert settings.allowed_hosts == ("mcp.example.com", "[::1]:8080")
    assert list(map(str, settings.trusted_proxies)) == ["10.0.0.0/8", "::1/128"]
    assert settings.log_level == "DEBUG"


def test_an_empty_variable_counts_as_one_that_is_not_set() -> None:
    assert Settings.load({"GATEWAY_REDIS_URL": "", "GATEWAY_PORT": " "}) == Settings()


def test_the_environment_of_the_process_is_not_read_behind_ones_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "1234")
    assert (Settings().port, Settings.load({}).port) == (8080, 8080)


def test_other_variables_are_ignored() -> None:
    assert Settings.load({"PATH": "/bin", "OTEL_SERVICE_NAME": "x", "MY_GATEWAY_PORT": "1"}) == Settings()


def test_an_unknown_setting_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"GATEWAY_MAX_BODY_BYTE": "1", "GATEWAY_ZZZ": "1"})
    assert [str(problem) for problem in caught.value.problems] == [
        "environment: GATEWAY_MAX_BODY_BYTE: is not a known setting (hint: did you mean GATEWAY_MAX_BODY_BYTES?)",
        "environment: GATEWAY_ZZZ: is not a known setting (hint: see docs/configuration.md)",
    ]


def test_what_kubernetes_sets_for_a_service_of_that_name_is_not_ours() -> None:
    environ = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "80",
        "GATEWAY_SERVICE_PORT_HTTP": "80",
        "GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "GATEWAY_DEMO_SERVICE_HOST": "10.0.0.2",
    }
    assert Settings.load(environ) == Settings()


def test_a_port_that_kubernetes_set_is_explained() -> None:
    with pytest.raises(ConfigError, match="enableServiceLinks"):
        Settings.load({"GATEWAY_PORT": "tcp://10.0.0.1:80"})


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("PORT", "65536", "at most 65535"),
        ("PORT", "x", "whole number"),
        ("OPS_PORT", "-1", "at least 0"),
        ("OPS_PORT", "8080", "same as GATEWAY_PORT"),
        ("HOST", "a b", "not a host"),
        ("WORKERS", "0", "at least 1"),
        ("EXPECTED_REPLICAS", "0", "at least 1"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "not a network"),
        ("TRUSTED_PROXIES", "proxy", "not a network"),
        ("AUTH_FAILURES_PER_MINUTE", "-1", "at least 0"),
        ("ON_REDIS_FAILURE", "panic", "must be 'local'"),
        ("ON_AUDIT_FAILURE", "panic", "must be 'deny'"),
        ("AUDIT_DURABILITY", "none", "must be 'write'"),
        ("LOG_LEVEL", "LOUD", "must be 'DEBUG'"),
        ("AUDIT", "redis:", "not known"),
        ("AUDIT_STREAM_LENGTH", "1", "at least 1000"),
        ("AUDIT_MAX_BYTES", "1", "at least 65536"),
        ("AUDIT_MAX_AGE_SECONDS", "1", "at least 60"),
        ("AUDIT_KEEP", "2", "means nothing"),
        ("AUDIT", "syslog", "not known"),
        ("AUDIT", "file:", "not known"),
        ("AUDIT", "stdout,file", "not known"),
        ("AUDIT", ",", "no entry"),
        ("KEYS", "abc", "base64 of 32 bytes"),
        ("KEYS", " , ", "no entry"),
        ("KEYS", base64.b64encode(b"x" * 31).decode(), "base64 of 32 bytes"),
        ("KEYS", base64.b64encode(bytes(32)).decode(), "not random"),
        ("ALLOWED_HOSTS", "https://a", "not a host"),
        ("ALLOWED_ORIGINS", "a.example.com", "not an origin"),
        ("ALLOWED_ORIGINS", "https://a/path", "not an origin"),
        ("MAX_BODY_BYTES", "1", "at least 1024"),
        ("MAX_RESPONSE_BYTES", "0", "at least 1024"),
        ("DRAIN_DELAY_SECONDS", "-1", "at least 0"),
        ("DRAIN_SECONDS", "inf", "finite"),
        ("HEADER_TIMEOUT_SECONDS", "0", "more than 0"),
        ("BODY_TIMEOUT_SECONDS", "nan", "finite"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_variable(name: str, value: str, word: str) -> None:
    found = problems_of(**{f"GATEWAY_{name}": value})
    assert list(found) == [f"GATEWAY_{name}"]
    assert word in found[f"GATEWAY_{name}"]


def test_a_sink_in_redis_needs_one() -> None:
    assert list(problems_of(GATEWAY_AUDIT="stdout, redis:audit")) == ["GATEWAY_REDIS_URL"]


@pytest.mark.parametrize(
    "url",
    [
        *("redis://r", "rediss://r:1/2", "unix:///r.sock"),
        *("redis+sentinel://a,b:1/name", "rediss+sentinel://:p@a:1,[::1]:2/name/1?sentinel_password=x"),
    ],
)
def test_a_redis_is_at_an_address_at_a_path_or_where_sentinels_say(url: str) -> None:
    found = Settings.load({"GATEWAY_REDIS_URL": url, "GATEWAY_KEYS": KEY}).redis_url
    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://redis", "redis://", "redis", "unix://", "redis://[x", "redis://user:pass/word@r"),
        *("redis+sentinel://a:1", "redis+sentinel:///name", "redis+sentinel://:p@/name"),
    ],
)
def test_what_is_no_redis_is_refused(url: str) -> None:
    assert "Redis" in problems_of(GATEWAY_REDIS_URL=url, GATEWAY_KEYS=KEY)["GATEWAY_REDIS_URL"]


def test_several_workers_need_redis_and_keys() -> None:
    assert problems_of(GATEWAY_WORKERS="2") == {
        "GATEWAY_REDIS_URL": "is required with 2 workers",
        "GATEWAY_KEYS": "is required with several workers",
    }


def test_redis_needs_keys() -> None:
    assert problems_of(GATEWAY_REDIS_URL=REDIS) == {"GATEWAY_KEYS": "is required with Redis"}


def test_everything_is_told_at_once() -> None:
    found = problems_of(GATEWAY_WORKERS="2", GATEWAY_PORT="x", GATEWAY_AUDIT="nowhere", GATEWAY_PROT="1")
    assert set(found) == {
        "GATEWAY_REDIS_URL",
        "GATEWAY_KEYS",
        "GATEWAY_PORT",
        "GATEWAY_AUDIT",
        "GATEWAY_PROT",
    }


def test_no_secret_is_ever_shown() -> None:
    settings = Settings.load(
        {"GATEWAY_REDIS_URL": REDIS, "GATEWAY_KEYS": KEY, "GATEWAY_METRICS_TOKEN": "s3cr3t-canary"}
    )
    shown = repr(settings) + str(settings) + str(settings.model_dump())
    assert "s3cr3t-canary" not in shown
    assert KEY not in shown
    assert repr(RAW) not in shown


def test_no_problem_shows_the_secret_that_caused_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"GATEWAY_REDIS_URL": "http://s3cr3t-canary", "GATEWAY_KEYS": "s3cr3t-canary"})
    assert "s3cr3t-canary" not in str(caught.value) + repr(caught.value.problems)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


NAMES = st.sampled_from([f"GATEWAY_{name.upper()}" for name in Settings.model_fields])


@given(st.dictionaries(NAMES, st.text(max_size=20)))
def test_any_environment_loads_or_is_a_config_error(environ: dict[str, str]) -> None:
    with suppress(ConfigError):
        assert Settings.load(environ).key_ring == ()
