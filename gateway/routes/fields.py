"""The types of which the models of routes.yaml are made.

A validator that refuses raises ``ValueError(message, hint)``: the report shows both, next to the file and the line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from gateway.routes.references import Expandable
from gateway.routes.units import format_duration, format_size, parse_duration, parse_size

NOT_YET = "not supported yet"

RESERVED = frozenset({"gateway", "none", "unknown"})
"""Labels of metrics and audit that mean no route, or the gateway itself."""

_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class Model(BaseModel):
    """A mapping of routes.yaml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    later: ClassVar[Mapping[str, str]] = {}
    """Keys that are planned and refused as such, each with what to do until then."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the reference calls a type, and how it writes a value of it."""

    name: str
    write: Callable[[Any], str] = str


def listed(value: object) -> object:
    """One text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """No entry twice."""
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"names {', '.join(twice)} twice", "remove one of them")
    return values


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by definition, no lookup made."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _positive_duration(value: object) -> float:
    if (seconds := parse_duration(value)) <= 0:
        raise ValueError("must be more than zero", "such as 30s")
    return seconds


def _leeway(value: object) -> float:
    if (seconds := parse_duration(value)) > 300:
        raise ValueError("must be 5m at most", "synchronize the clocks")
    return seconds


def _positive_size(value: object) -> int:
    if (size := parse_size(value)) <= 0:
        raise ValueError("must be more than zero", "such as 16MiB")
    return size


def _http_url(value: str) -> str:
    if any(character <= " " or character == "\x7f" for character in value):
        raise ValueError("must be a URL without spaces")
    try:
        url = urlsplit(value)
        host, _port = url.hostname, url.port
    except ValueError:
        raise ValueError("is not a URL", "such as https://host.example/mcp") from None
    if url.scheme not in {"http", "https"} or not host:
        raise ValueError("must be an http or https URL", "such as https://host.example/mcp")
    if "@" in url.netloc:
        raise ValueError("must not contain a user name or password", "put them under credentials:")
    if "#" in value:
        raise ValueError("must not contain a fragment", "remove what follows #")
    return value


def _none_if_off(value: object) -> object:
    return None if value == "off" else value


def _secure_url(value: str) -> str:
    url = urlsplit(_http_url(value))
    if url.scheme != "https" and not is_loopback(url.hostname or ""):
        raise ValueError("must be an https URL", "plain http is accepted for loopback addresses only")
    return value


def _scope(value: str) -> str:
    if _SCOPE.fullmatch(value) is None:
        raise ValueError("is not an OAuth scope (RFC 6749, 3.3)", "printable ASCII without spaces, quotes, backslashes")
    return value


def _name(value: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", value) is None:
        raise ValueError(
            "must be lower-case letters, digits and hyphens, 40 at most", "such as deploy-tools; it is part of names"
        )
    if value in RESERVED:
        raise ValueError(f"'{value}' is reserved", "choose another name")
    return value


def _uri_pattern(value: str) -> str:
    if re.fullmatch(r"[\x21-\x7E]{1,1024}", value) is None:
        raise ValueError("is not a URI or a pattern of URIs", "such as file:///reports/*")
    return value


def _pattern(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.\-/*?\[\]!]{1,128}", value) is None:
        raise ValueError("is not the name of a tool or a pattern of names", "such as rollback or debug_*")
    return value


Duration = Annotated[
    float,
    BeforeValidator(_positive_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    Word("duration", format_duration),
]
"""Seconds, more than none."""

Leeway = Annotated[
    float,
    BeforeValidator(_leeway, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    Word("duration", format_duration),
]
"""Seconds, at most five minutes."""

Size = Annotated[
    int,
    BeforeValidator(_positive_size, json_schema_input_type=int | str),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    Word("size", format_size),
]
"""Bytes."""

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
MaybeCount = Annotated[
    Count | None,
    BeforeValidator(_none_if_off, json_schema_input_type=int | Literal["off"]),
    Word("whole number, `off`"),
]
"""None where it is ``off``."""

Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, AfterValidator(_name), Word("name")]
Text = Annotated[str, Field(min_length=1)]
Scope = Annotated[str, AfterValidator(_scope), Word("scope")]
Scopes = Annotated[tuple[Scope, ...], AfterValidator(unique)]
Pattern = Annotated[str, AfterValidator(_pattern), Word("pattern")]
UriPattern = Annotated[str, AfterValidator(_uri_pattern), Word("URI pattern")]
HttpUrl = Annotated[str, AfterValidator(_http_url), Expandable, Word("URL")]
SecureUrl = Annotated[str, AfterValidator(_secure_url), Expandable, Word("https URL")]
Era = Literal["auto", "modern", "legacy"]
