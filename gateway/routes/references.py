"""Secrets by reference: ``${NAME}`` from the environment, ``file:/run/secrets/x`` from a file.

Only fields of the types below expand anything, and only what stands in routes.yaml: what was expanded is not read a
second time, and nothing that a client, a token or a backend sends ever comes here. The gateway's own settings
(``GATEWAY_*``) cannot be referred to, so that its keys never reach a backend. Validators find the environment in
pydantic's validation context under ``environ``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr, ValidationInfo

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_SECRET = 64 * 1024
NEVER_INLINE = (
    "is a literal value; secrets are never inline",
    'write "${NAME}" for an environment variable, or file:/run/secrets/NAME',
)
_SECRET_NAME = re.compile(r"(?i)token|secret|passw(or)?d|credential|(api|private|access)_?key")


def has_reference(value: str) -> bool:
    """Whether it is, or contains, a reference."""
    return value.startswith("file:") or _REFERENCE.search(value) is not None


def expand(value: str, environ: Mapping[str, str]) -> str:
    """Replace each ``${NAME}``.

    Raises:
        ValueError: a malformed reference, or variables that are not set: all of them are named.
    """
    names = _REFERENCE.findall(value)
    if "${" in _REFERENCE.sub("", value) or not all(map(_NAME.fullmatch, names)):
        raise ValueError("has a malformed reference", "write ${NAME}: letters, digits and underscores")
    if own := sorted({name for name in names if name.startswith("GATEWAY_")}):
        raise ValueError(f"refers to the gateway's own setting {', '.join(own)}", "use a variable of its own")
    if missing := sorted({name for name in names if not environ.get(name)}):
        plural = "s" if len(missing) > 1 else ""
        raise ValueError(
            f"environment variable{plural} {', '.join(missing)} not set or empty",
            f"set {' and '.join(missing)} where the gateway is started",
        )
    return _REFERENCE.sub(lambda match: environ[match[1]], value)


def resolve_secret(value: str, environ: Mapping[str, str], *, lines: bool = False) -> str:
    """The secret behind a reference, without the line break at its end. It is one line, unless it may have several.

    Raises:
        ValueError: it is missing, empty or unusable; the message never has the secret.
    """
    secret = _read(value.removeprefix("file:")) if value.startswith("file:") else expand(value, environ)
    if not secret:
        raise ValueError("the secret is empty")
    allowed = "\r\n" if lines else ""
    if any((ord(character) < 32 and character not in allowed) or ord(character) == 127 for character in secret):
        raise ValueError("the secret contains a line break or another control character", "store it as one line")
    return secret


def _read(name: str) -> str:
    hint = f"mount {name} where the gateway runs, readable for its user"
    if not name.startswith("/"):
        raise ValueError("the path of a secret file must be absolute", "such as file:/run/secrets/NAME")
    try:
        with Path(name).open("rb") as file:
            content = file.read(_LARGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"secret file {name} cannot be read: {_reason(error)}", hint) from None
    if len(content) > _LARGEST_SECRET:
        raise ValueError(f"secret file {name} is larger than 64KiB")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"secret file {name} is not UTF-8 text") from None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "not a path"


def environ_of(info: ValidationInfo) -> Mapping[str, str]:
    """The environment that the loader was given; an empty one outside it."""
    context: dict[str, Any] = info.context or {}
    environ: Mapping[str, str] = context.get("environ", {})
    return environ


def _secret(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if not has_reference(value):
        raise ValueError(*NEVER_INLINE)
    return resolve_secret(value, environ_of(info))


def _expanded(value: object, info: ValidationInfo) -> object:
    return expand(value, environ_of(info)) if isinstance(value, str) else value


def _variable(value: object, info: ValidationInfo) -> object:
    return resolve_secret(value, environ_of(info)) if isinstance(value, str) and has_reference(value) else value


def is_plain_secret(name: str, value: str) -> bool:
    """Whether a variable's name says secret, and its value is not a reference."""
    return _SECRET_NAME.search(name) is not None and not has_reference(value)


Secret = Annotated[SecretStr, BeforeValidator(_secret, json_schema_input_type=str)]
"""A secret, written as a reference."""

Variable = Annotated[str, BeforeValidator(_variable, json_schema_input_type=str)]
"""The value of an environment variable of a stdio backend: a reference, or a plain value that is no secret."""

Expandable = BeforeValidator(_expanded, json_schema_input_type=str)
"""Marks a text in which ``${NAME}`` is replaced."""
