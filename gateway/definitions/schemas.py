"""Input schemas made ready to judge arguments, or refused; each text is looked at once.

Nothing is ever fetched: a ``$ref`` that leaves the document makes a schema unusable. What a schema can make the gateway
do is bounded before it is compiled (``work``, ``patterns``). One that may judge a part of a value many times is used
within a budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import jsonschema_rs
import msgspec

from gateway.definitions import patterns
from gateway.definitions.structure import Schema
from gateway.definitions.work import Unbounded, Work

MAX_DEPTH = 64
"""Levels of a schema, and of arguments."""

MAX_PATTERNS = 100
BUDGET = 50_000_000
"""Units of about ten nanoseconds for one look at arguments."""

_FREE = 16
"""A schema that judges no part more often is used without counting."""

_ALWAYS = 2
"""Levels of arguments that must be within the budget."""

_KEPT = 8192
_EACH_BYTES = 128 << 10
"""What each of many patterns may have; together about as much as a single one."""


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any) -> bool:
        """Whether it fits.

        Raises:
            Exhausting: see there.
        """
        ...

    def iter_errors(self, instance: Any) -> Any:
        """Each way in which it does not; after ``is_valid``."""
        ...


class Unusable(ValueError):  # noqa: N818 - a property of the schema
    """No arguments can be judged by this schema; ``str()`` says why, for operators."""


class Exhausting(Exception):  # noqa: N818 - a property of the arguments
    """To judge these arguments might take too long."""


def compiled(schema: bytes) -> Validator:
    """The validator of the JSON text of a schema.

    Raises:
        Unusable: it is no schema, refers to something outside itself, or could be made to run for too long. It is not
            looked at again then either.
    """
    found = _judged(schema)
    if isinstance(found, str):
        raise Unusable(found)
    return found


def refuse_bomb(schema: Any) -> None:
    """The bounds alone, for schemas by which clients judge and the gateway does not.

    Raises:
        Unusable: it is beyond them.
    """
    if schema is None:
        return
    try:
        refuse_depth(schema)
        if isinstance(schema, dict):
            _refuse_work(Work(schema))
    except (ValueError, RecursionError) as error:
        raise Unusable(str(error)) from None


def refuse_depth(value: Any) -> None:
    """Raises: Unbounded: more than ``MAX_DEPTH`` levels."""
    if _size(value)[0] > MAX_DEPTH:
        raise Unbounded(f"it is nested deeper than {MAX_DEPTH} levels")


@lru_cache(_KEPT)
def _judged(text: bytes) -> Validator | str:
    try:
        schema = msgspec.json.decode(text)
        refuse_depth(schema)
        work = Work(schema)
        most = _refuse_work(work)
        found = _patterns_in(work.schemas)
        options = jsonschema_rs.FancyRegexOptions(
            backtrack_limit=patterns.BACKTRACKS,
            size_limit=max(_EACH_BYTES, patterns.MOST_BYTES // max(1, len(found))),
        )
        validator: Validator = jsonschema_rs.validator_for(
            schema, offline=True, mask="the value", pattern_options=options
        )
        backtracking = _backtracking(found)
    except Unbounded as error:
        return str(error)
    except jsonschema_rs.ValidationError as error:
        where = "/".join(map(str, error.instance_path)) or "its root"
        return f"it is no valid schema at {where[:160]}: {str(error.message)[:160]}"
    except (ValueError, jsonschema_rs.ReferencingError, RecursionError) as error:
        return f"it cannot be used: {str(error)[:160]}"
    if most <= _FREE and not backtracking:
        return validator
    return _Budgeted(validator, work, backtracking)


def _refuse_work(work: Work) -> int:
    if work.at_most(_ALWAYS) > BUDGET:
        raise Unbounded("it would judge one value too many times")
    return work.at_most(MAX_DEPTH)


class _Budgeted:
    """Judges only what the budget is enough for."""

    def __init__(self, validator: Validator, work: Work, backtracking: set[str]) -> None:
        self._validator = validator
        self._times = [work.at_most(depth) for depth in range(MAX_DEPTH + 1)]
        self._matches: list[int] = []
        if backtracking:
            matches = Work(work.schema, lambda schema: sum(pattern in backtracking for pattern in _own(schema)))
            self._matches = [matches.at_most(depth) for depth in range(MAX_DEPTH + 1)]

    def is_valid(self, instance: Any) -> bool:
        depth, parts = _size(instance)
        depth = min(depth, MAX_DEPTH)
        if parts * self._times[depth] > BUDGET:
            raise Exhausting
        if self._matches and self._matches[depth] * sum(map(patterns.cost, _lengths(instance))) > BUDGET:
            raise Exhausting
        return self._validator.is_valid(instance)

    def iter_errors(self, instance: Any) -> Any:
        return self._validator.iter_errors(instance)


def _patterns_in(schemas: Iterable[Schema]) -> set[str]:
    """Raises: Unbounded: there are too many."""
    found = {pattern for schema in schemas for pattern in _own(schema)}
    if len(found) > MAX_PATTERNS:
        raise Unbounded(f"it has more than {MAX_PATTERNS} patterns")
    return found


def _backtracking(found: set[str]) -> set[str]:
    """Those that the linear engine does not take.

    Raises:
        Unbounded: one of them might run for too long.
    """
    backtracking = {pattern for pattern in found if not patterns.is_linear(pattern)}
    for pattern in sorted(backtracking):
        if not patterns.is_bounded(pattern):
            raise Unbounded(f"its pattern {pattern[:60]!a} can run for too long")
    return backtracking


def _own(schema: Schema) -> Iterator[str]:
    if isinstance(pattern := schema.get("pattern"), str):
        yield pattern
    if isinstance(properties := schema.get("patternProperties"), dict):
        yield from properties


def _size(value: Any) -> tuple[int, int]:
    """Levels and parts of a JSON value."""
    depth, parts, level = 0, 1, [value]
    while level:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list | tuple):
                inner.extend(one)
        depth += bool(inner)
        parts += len(inner)
        level = inner
    return depth, parts


def _lengths(value: Any) -> Iterator[int]:
    """Of all texts and names in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield len(one)
        elif isinstance(one, dict):
            yield from map(len, one)
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
