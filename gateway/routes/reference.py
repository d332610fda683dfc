"""``docs/configuration.md`` and the JSON Schema, made from the models: they cannot name what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from gateway.routes.auth import Auth, Introspection, Issuer, JwksPolicy
from gateway.routes.backend import Backend
from gateway.routes.credentials import AuthorizationCode, ClientCredentials, Credentials, TokenExchange
from gateway.routes.fields import Word
from gateway.routes.limits import LimitRule
from gateway.routes.models import Defaults, Route, Routes, ToolRule, Toolset
from gateway.routes.pins import Pins
from gateway.routes.report import bare
from gateway.routes.units import format_duration

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Routes),
    ("auth", Auth),
    ("auth.issuers[]", Issuer),
    ("auth.issuers[].introspection", Introspection),
    ("auth.jwks", JwksPolicy),
    ("limits[]", LimitRule),
    ("defaults", Defaults),
    ("defaults.pins", Pins),
    ("routes[]", Route),
    ("routes[].backend", Backend),
    ("routes[].backend.credentials", Credentials),
    ("routes[].backend.credentials.client_credentials", ClientCredentials),
    ("routes[].backend.credentials.token_exchange", TokenExchange),
    ("routes[].backend.credentials.authorization_code", AuthorizationCode),
    ("routes[].tools.*", ToolRule),
    ("toolsets.*", Toolset),
)

_WORDS = {bool: "`true`, `false`", int: "whole number", float: "number", SecretStr: "secret", SecretBytes: "secret"}

_HEAD = """\
# Configuration

<!-- Generated: mcp-gateway schema --markdown > docs/configuration.md -->

Two things, never mixed. **Settings** are about the process: environment variables, read once at start. **Routes** are
policy: one YAML file in Git, checked as a whole and reloaded while the gateway runs.

- `mcp-gateway check config/routes.yaml` reports every error at once, with its line and a hint.
- `mcp-gateway schema` prints the JSON Schema of the file, for editors.
- A key, a value or a `GATEWAY_*` variable that does not exist is an error, never ignored.

## Settings

An empty variable counts as one that is not set. Lists are separated by commas.

"""

_ROUTES = """
## routes.yaml

YAML 1.2: `true` and `false` are the only booleans. A key twice, a key without a value, tags and merge keys are errors.

- **Durations** are a whole number and a unit: `250ms`, `30s`, `10m`, `6h`, `1d`. **Sizes** are bytes or `16MiB`.
- **Secrets** are references: `${NAME}` is an environment variable, whole or within a text; `file:/run/secrets/name` is
  a file, without the line break at its end. They are accepted in `credentials:`, `env:` and `client_secret:`, where a
  secret in clear is refused; `${NAME}` also in `backend.url` and in the URLs and audiences of `auth:`. Nothing else is
  expanded, and nothing that comes from outside the file. What is missing is an error at load. `GATEWAY_*` cannot be
  referred to.
- **Scopes**: a rule of a tool replaces its route's scopes. `[]` means that no scope is needed. Where neither says
  anything, the tool is neither listed nor callable.
- **Limits** add up: the file's, the route's and the tool's all hold.
- **Public names** are `<prefix><tool>`. No route's prefix may begin with another's, because names could collide.
"""


def markdown(settings: type[BaseModel]) -> str:
    """The reference of the settings and of routes.yaml, to be printed: without a line break at its end."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    rows = (_row(f"{prefix}{name}".upper(), info) for name, info in settings.model_fields.items())
    return _HEAD + _table("Variable", rows) + _ROUTES + "".join(map(_section, _SECTIONS)).rstrip("\n")


def json_schema() -> dict[str, Any]:
    """JSON Schema of routes.yaml, for editors."""
    schema = _as_written(Routes.model_json_schema(mode="validation"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "routes.yaml of mcp-gateway"}


def _as_written(node: Any) -> Any:
    """Without null, which the file does not allow, and with durations as people write them."""
    if isinstance(node, list):
        return [_as_written(one) for one in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _as_written(value) for key, value in node.items()}
    if isinstance(default := schema.get("default", ""), float):
        schema["default"] = format_duration(default)
    elif default is None:
        del schema["default"]
    choices = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    return {**choices[0], **schema} if len(choices) == 1 else {**schema, **({"anyOf": choices} if choices else {})}


def _section(section: tuple[str, type[BaseModel]]) -> str:
    title, model = section
    words = " ".join((model.__doc__ or "").split())
    return f"\n### {title}\n\n{words}\n\n" + _table(
        "Key", (_row(name, info) for name, info in model.model_fields.items())
    )


def _table(what: str, rows: Iterator[str]) -> str:
    return f"| {what} | Type | Default | Meaning |\n|---|---|---|---|\n" + "".join(rows)


def _row(name: str, info: FieldInfo) -> str:
    cells = (f"`{name}`", _type(info), _default(info), info.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _word(metadata: Any) -> Word | None:
    return next((one for one in metadata if isinstance(one, Word)), None)


def _type(info: FieldInfo) -> str:
    word = _word(info.metadata)
    return word.name if word else _named(info.annotation)


def _named(annotation: Any) -> str:
    if get_origin(annotation) is Annotated and (word := _word(annotation.__metadata__)):
        return word.name
    plain = bare(annotation)
    if plain is not annotation:
        return _named(plain) if get_origin(annotation) is Annotated else _named(_inner(annotation))
    origin, args = get_origin(plain), get_args(plain)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(one) if isinstance(one, bool) else one}`" for one in args)
    if origin is tuple:
        return f"list of {_named(args[0])}"
    if origin is dict:
        return f"mapping of {_named(args[0])} to {_named(args[1])}"
    return _simple(plain)


def _inner(annotation: Any) -> Any:
    return next(one for one in get_args(annotation) if one is not type(None))


def _simple(plain: Any) -> str:
    for title, model in _SECTIONS:
        if plain is model:
            anchor = "".join(character for character in title.lower() if character.isalnum() or character in "-_")
            return f"[{title}](#{anchor})"
    return _WORDS.get(plain, "text")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    if info.default_factory is not None:
        return ""
    if (word := _word(info.metadata)) and info.default is not None:
        return f"`{word.write(info.default)}`"
    return _written(info.default)


def _written(value: Any) -> str:
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"
