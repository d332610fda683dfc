"""Where in a JSON Schema there are schemas, and where data: a property may be called like a keyword.

The keywords are those of 2020-12 and of the drafts before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]

IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
"""Keywords whose schemas judge the same value."""

MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Keywords that hold schemas by a name of the author's choice."""

OF_PARTS = frozenset(
    {
        *("items", "prefixItems", "contains", "additionalItems", "unevaluatedItems", "contentSchema"),
        *("additionalProperties", "propertyNames", "unevaluatedProperties"),
    }
)
"""Keywords whose schemas judge the members of a value."""

DATA = frozenset(
    {
        *("const", "enum", "default", "example", "examples", "required", "dependentRequired", "pattern", "format"),
        *("type", "$id", "$schema", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"),
        *("contentEncoding", "contentMediaType"),
    }
)
"""Keywords whose values mean something to a validator or to the tool; every other keyword holds words for a reader."""

_ONE_OR_MORE = IN_PLACE | OF_PARTS


def rebuilt(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """The schema after ``change`` of each schema in it, the innermost first. Data is left as it is."""
    if not isinstance(schema, dict):
        return schema
    return change({key: _rebuilt_member(key, value, change) for key, value in schema.items()})


def _rebuilt_member(key: str, value: Any, change: Callable[[Schema], Schema]) -> Any:
    if key in MAPS and isinstance(value, dict):
        return {name: rebuilt(part, change) for name, part in value.items()}
    if key in _ONE_OR_MORE:
        return [rebuilt(part, change) for part in value] if isinstance(value, list) else rebuilt(value, change)
    return value


def members(schema: Schema) -> Iterator[tuple[str, str, Any]]:
    """The schemas directly in this one: the keyword, the name or number under it (or nothing), and the schema."""
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            yield from ((key, name, part) for name, part in value.items() if isinstance(part, dict | bool))
        elif key in _ONE_OR_MORE and isinstance(value, list):
            yield from ((key, str(number), part) for number, part in enumerate(value))
        elif key in _ONE_OR_MORE and isinstance(value, dict | bool):
            yield key, "", value


def words_in(schema: Schema) -> Iterator[str]:
    """The keywords of a schema that hold words for a reader."""
    return (key for key in schema if key not in DATA and key not in MAPS and key not in _ONE_OR_MORE)
