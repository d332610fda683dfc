"""The process: what the environment says, read once at start. What may be reloaded is in ``routes``.

A validator that refuses raises ``ValueError(message, hint)``; neither ever has the value of a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from gateway.errors import ConfigError, Problem

_PREFIX = "GATEWAY_"
_OF_KUBERNETES = re.compile(
    r"GATEWAY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
"""What Kubernetes sets in every pod beside a Service named ``gateway`` or ``gateway-…`` (service links)."""

_MESSAGES = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
}


@dataclass(frozen=True, slots=True)
class AuditSink:
    """Where the audit goes: ``path`` is set for a file, ``stream`` for Redis."""

    kind: Literal["file", "stdout", "redis"]
    path: Path | None = None
    stream: str = ""

    def __str__(self) -> str:
        where = self.stream or self.path
        return self.kind if where is None else f"{self.kind}:{where}"


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not (parts := tuple(part.strip() for part in value.split(",") if part.strip())):
        raise ValueError("has no entry", "leave the variable unset for the default")
    return parts


def _key(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        key = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ValueError("has a key that is not base64 of 32 bytes", "make one with: openssl rand -base64 32")
    if len(set(key)) < 8:
        raise ValueError("has a key that is not random", "make one with: openssl rand -base64 32")
    return key


def _sink(value: object) -> object:
    if not isinstance(value, str):
        return value
    kind, _colon, rest = value.partition(":")
    if value == "stdout":
        return AuditSink("stdout")
    if kind == "file" and rest:
        return AuditSink("file", Path(rest))
    if kind == "redis" and rest:
        return AuditSink("redis", stream=rest)
    raise ValueError("has a sink that is not known", "use stdout, file:PATH or redis:STREAM, several with commas")


def _redis_url(value: SecretStr) -> SecretStr:
    try:
        url = urlsplit(value.get_secret_value())
        if url.scheme in {"redis+sentinel", "rediss+sentinel"}:
            usable = bool(url.netloc.rpartition("@")[2] and url.path.strip("/"))
        else:
            usable = url.port != 0 and bool(
                {"redis": url.hostname, "rediss": url.hostname, "unix": url.path}[url.scheme]
            )
    except (KeyError, ValueError):
        usable = False
    if not usable:
        raise ValueError("is not the URL of a Redis", "such as redis://redis:6379/0 or redis+sentinel://a,b,c/name")
    return value


def _host(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,255}", value) is None:
        raise ValueError("has an entry that is not a host", "such as mcp.example.com or 127.0.0.1:8080")
    return value.lower()


def _origin(value: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]{1,255}", value) is None:
        raise ValueError("has an entry that is not an origin", "such as https://app.example.com, without a path")
    return value.lower()


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("has an entry that is not a network", "such as 10.0.0.0/8, or one address") from None


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[
    tuple[Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)], ...],
    NoDecode,
    BeforeValidator(_split),
]
Keys = Annotated[tuple[Annotated[SecretBytes, BeforeValidator(_key)], ...], NoDecode, BeforeValidator(_split)]
Sinks = Annotated[tuple[Annotated[AuditSink, BeforeValidator(_sink)], ...], NoDecode, BeforeValidator(_split)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 30)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What the process is told. ``Settings()`` is the defaults; the environment comes in through ``load`` alone."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    config: Path = Field(default=Path("config/routes.yaml"), description="The routes file.")
    host: Annotated[str, AfterValidator(_host)] = Field(
        default="127.0.0.1", description="Address to listen on. Without `auth:` in the routes, loopback only."
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port of `/mcp`; `0` takes a free one.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes. More than one needs Redis and keys.")
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        default=None,
        description="State shared by workers and replicas: `redis:`, `rediss:`, `unix:`, `redis+sentinel:`. "
        "Unset: in the process, one worker.",
    )
    on_redis_failure: Literal["local", "open", "closed"] = Field(
        default="local",
        description="While Redis is away: each replica limits by itself, nobody is limited, or nobody may call.",
    )
    expected_replicas: int = Field(
        default=1, ge=1, le=10_000, description="Divides limits by this while Redis is away and replicas limit alone."
    )
    audit: Sinks = Field(
        default=(AuditSink("stdout"),),
        description="Sinks of the audit: `stdout`, `file:PATH`, `redis:STREAM`; with commas, the first decides.",
    )
    on_audit_failure: Literal["deny", "allow"] = Field(
        default="deny", description="When the audit cannot be written: `deny` executes nothing, `allow` goes on."
    )
    audit_durability: Literal["write", "fsync"] = Field(
        default="write", description="`write` survives the end of the process, `fsync` that of the machine."
    )
    audit_max_bytes: int | None = Field(
        default=None, ge=64 << 10, description="Size from which the audit goes on in a new file. Unset: any."
    )
    audit_max_age_seconds: float | None = Field(
        default=None, ge=60, allow_inf_nan=False, description="Age from which it does. Unset: any."
    )
    audit_keep: int | None = Field(
        default=None, ge=1, description="Former audit files that are kept; older ones are deleted. Unset: all."
    )
    audit_stream_length: int | None = Field(
        default=None, ge=1000, description="Records that a `redis:` sink keeps, about. Unset: all."
    )
    keys: Keys = Field(
        default=(),
        description="Keys for sealed tokens: base64 of 32 bytes each; the first seals, all open. Unset: made at start.",
    )
    allowed_hosts: Hosts = Field(default=(), description="Accepted `Host` values beside loopback and `auth.resource`.")
    allowed_origins: Origins = Field(default=(), description="Accepted `Origin` values of browsers beside loopback.")
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks of proxies whose `X-Forwarded-For` (where it is missing, `Forwarded`) is believed. "
        "A proxy must set the one or remove it.",
    )
    auth_failures_per_minute: int = Field(
        default=6000,
        ge=0,
        le=10_000_000,
        description="Failed authentications of one address that are judged; more are 429, unread. `0`: any number.",
    )
    ops_port: int | None = Field(
        default=None, ge=0, le=65535, description="Own port for health and metrics. Unset: the same port."
    )
    max_body_bytes: Bytes = Field(default=4 << 20, description="The largest request.")
    max_response_bytes: Bytes = Field(default=16 << 20, description="The largest answer of a backend, for any route.")
    drain_delay_seconds: Seconds = Field(default=5.0, description="Not ready, but still accepting, after SIGTERM.")
    drain_seconds: Seconds = Field(default=25.0, description="Time for running calls to end after that.")
    header_timeout_seconds: Timeout = Field(default=10.0, description="Time for the headers of a request to arrive.")
    body_timeout_seconds: Timeout = Field(default=30.0, description="Time for the body of a request to arrive.")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="Least severity that is logged."
    )
    metrics_token: SecretStr | None = Field(
        default=None, repr=False, description="Bearer token that `/metrics` asks for. Unset: none."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Source,
        env_settings: Source,
        dotenv_settings: Source,
        file_secret_settings: Source,
    ) -> tuple[Source, ...]:
        """Nothing is read behind the caller's back."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """The settings of this environment.

        Raises:
            ConfigError: with everything that is wrong, by the name of the variable.
        """
        given = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value.strip()}
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): value.strip() for name, value in given.items()}
        problems = [*_unknown(given, cls), *_together(given)]
        try:
            settings = cls(**source())
        except ValidationError as error:
            problems += [_problem(detail) for detail in error.errors(include_url=False, include_input=False)]
            raise ConfigError(_first_of_each(problems)) from None
        if problems:
            raise ConfigError(problems)
        return settings

    @property
    def key_ring(self) -> tuple[bytes, ...]:
        """The keys in the clear: the first seals, all open."""
        return tuple(key.get_secret_value() for key in self.keys)


def _say(name: str, message: str, hint: str = "") -> Problem:
    return Problem("environment", None, name, message, hint)


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    return list({problem.path: problem for problem in reversed(problems)}.values())[::-1]


def _unknown(given: Mapping[str, str], model: type[BaseSettings]) -> Iterator[Problem]:
    known = [name.upper() for name in model.model_fields]
    for name in sorted(name.removeprefix(_PREFIX) for name in given if not _OF_KUBERNETES.fullmatch(name)):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {_PREFIX}{near[0]}?" if near else "see docs/configuration.md"
            yield _say(f"{_PREFIX}{name}", "is not a known setting", hint)


def _together(given: Mapping[str, str]) -> Iterator[Problem]:
    workers = given.get("GATEWAY_WORKERS", "1").strip()
    several = workers.isdecimal() and int(workers) > 1
    shared = "GATEWAY_REDIS_URL" in given
    if re.search(r"(^|,)\s*redis:[^,]", given.get("GATEWAY_AUDIT", "")) and not shared:
        yield _say("GATEWAY_REDIS_URL", "is required for a redis: sink of the audit", "set it, or take another sink")
    if several and not shared:
        yield _say("GATEWAY_REDIS_URL", f"is required with {workers} workers", "set it, or GATEWAY_WORKERS=1")
    if (several or shared) and "GATEWAY_KEYS" not in given:
        why = "several workers" if several else "Redis"
        yield _say("GATEWAY_KEYS", f"is required with {why}", "make a key with: openssl rand -base64 32")
    if (
        "GATEWAY_AUDIT_KEEP" in given
        and not {"GATEWAY_AUDIT_MAX_BYTES", "GATEWAY_AUDIT_MAX_AGE_SECONDS"} & given.keys()
    ):
        yield _say("GATEWAY_AUDIT_KEEP", "means nothing while files never end", "set GATEWAY_AUDIT_MAX_BYTES")
    port = given.get("GATEWAY_PORT", "8080").strip()
    if port != "0" and given.get("GATEWAY_OPS_PORT", "").strip() == port:
        yield _say("GATEWAY_OPS_PORT", "is the same as GATEWAY_PORT", "leave it unset for one port")


def _problem(detail: ErrorDetails) -> Problem:
    name = f"{_PREFIX}{detail['loc'][0]}".upper()
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return _say(name, *map(str, context["error"].args[:2]))
    template = _MESSAGES.get(detail["type"])
    message = template.format(**context) if template else detail["msg"]
    hint = "set enableServiceLinks: false if a Kubernetes Service set it" if name == "GATEWAY_PORT" else ""
    return _say(name, message, hint or "see docs/configuration.md")
