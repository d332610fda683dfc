"""A definition without hidden characters, or the reason why it cannot be had.

Words for a reader are cleaned. What is compared with what an agent sends (names, keys, values of schemas) cannot be
changed without changing the tool, so a definition with something hidden there is left out. Results are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.definitions import hidden
from gateway.definitions.structure import Schema, rebuilt, words_in

_SCHEMAS = frozenset({"inputSchema", "outputSchema"})
_IDENTITIES = frozenset({"name", "uri", "uriTemplate"})
_SHOWN = 8


class Unclean(ValueError):  # noqa: N818 - a property of the definition
    """Something hidden stands where it cannot be removed; ``str()`` is the reason, for operators."""


def clean(definition: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The definition of a tool, prompt, resource or template, cleaned, and what was removed from it, in words.

    Raises:
        Unclean: it has hidden characters in a name, a key or a value.
    """
    found = set(hidden.hidden_in(definition))
    if not found:
        return definition, ""
    cleaned = {key: _member(key, value) for key, value in definition.items()}
    left = set(hidden.hidden_in(cleaned))
    if left:
        raise Unclean(f"it has hidden characters in a name, a key or a value: {_listed(left)}")
    changed = [key for key in definition if cleaned[key] != definition[key]]
    return cleaned, f"hidden characters removed from {', '.join(changed)}: {_listed(found)}"


def _member(key: str, value: Any) -> Any:
    if key in _IDENTITIES:
        return value
    if key in _SCHEMAS:
        return rebuilt(value, _schema)
    if key == "arguments" and isinstance(value, list):
        return [_argument(one) for one in value]
    return _words(value)


def _schema(schema: Schema) -> Schema:
    return {**schema, **{key: _words(schema[key]) for key in words_in(schema)}}


def _argument(argument: Any) -> Any:
    """Of a prompt; agents send its name."""
    if not isinstance(argument, dict):
        return argument
    return {key: value if key == "name" else _words(value) for key, value in argument.items()}


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return hidden.cleaned(value)
    if isinstance(value, dict):
        return {key: _words(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_words(part) for part in value]
    return value


def _listed(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
