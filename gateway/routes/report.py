"""What pydantic found, as problems with file, line, YAML path and a hint, in words for the operator."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.routes.document import Fault, Location, Node
from gateway.routes.fields import NOT_YET, Model
from gateway.routes.models import Routes

_MESSAGES = {
    "missing": ("is required", "add it"),
    "string_type": ("must be text", "quote it"),
    "string_too_short": ("must not be empty", "write something, or remove it"),
    "string_pattern_mismatch": ("must match {pattern}", "see docs/configuration.md"),
    "tuple_type": ("must be a list", "write it as [one, two]"),
    "dict_type": ("must be a mapping", "write it as key: value"),
    "model_type": ("must be a mapping", "write it as key: value"),
    "bool_type": ("must be true or false", "YAML 1.2 has no yes, no, on, off"),
    "int_type": ("must be a whole number", "without quotes and decimal point"),
    "int_from_float": ("must be a whole number", "without a decimal point"),
    "greater_than_equal": ("must be at least {ge}", "raise it"),
    "less_than_equal": ("must be at most {le}", "lower it"),
    "too_short": ("must have at least {min_length}", "add one, or remove the key"),
    "too_long": ("must have at most {max_length}", "remove some"),
}


def faults(error: ValidationError, root: Node) -> Iterator[Fault]:
    """Each error at the line of its node."""
    for detail in error.errors(include_url=False, include_input=False):
        if _is_consequence(detail, root):
            continue
        location: Location = detail["loc"]
        if location[-1:] == ("[key]",) and detail["type"] != "extra_forbidden":
            location = location[:-1]
        message, hint = _words(detail, location, root)
        yield Fault(root.line_of(location), location, message, hint)


def _is_consequence(detail: ErrorDetails, root: Node) -> bool:
    """Whether it only follows from another error, which is reported: entries that failed are not counted either."""
    if detail["type"] == "too_short":
        return len(root.at(detail["loc"]) or ()) >= int(detail["ctx"]["min_length"])
    return detail["type"] == "default_factory_not_called"


def _words(detail: ErrorDetails, location: Location, root: Node) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        message, hint = (*map(str, context["error"].args), "")[:2]
        return message, hint or "see docs/configuration.md"
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind == "literal_error":
        return _choice(str(context["expected"]), root.at(location))
    message, hint = _MESSAGES.get(kind, (detail["msg"], "see docs/configuration.md"))
    return message.format(**context) if kind in _MESSAGES else message, hint


def _choice(expected: str, value: object) -> tuple[str, str]:
    words = expected.replace("True", "true").replace("False", "false").replace("'", "")
    return f"must be {words}", _nearest(value, words.replace(" or ", ", ").split(", ")) or "choose one of them"


def _unknown_key(location: Location) -> tuple[str, str]:
    key, model = str(location[-1]), _model_at(location[:-1])
    if key in model.later:
        return NOT_YET, model.later[key]
    known = [*model.model_fields]
    return "is not a known key", _nearest(key, known) or f"known are {', '.join(known)}"


def _nearest(word: object, known: list[str]) -> str:
    matches = get_close_matches(word, known, n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"did you mean {matches[0]}?" if matches else ""


def _model_at(location: Location) -> type[Model]:
    current: Any = Routes
    for part in location:
        current = bare(_step(current, part))
    assert isinstance(current, type)
    assert issubclass(current, Model)
    return current


def _step(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields[str(part)].annotation
    return get_args(annotation)[1 if get_origin(annotation) is dict else 0]


def bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and ``| None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return bare(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return bare(next(one for one in get_args(annotation) if one is not type(None)))
    return annotation
