"""Do the arguments fit the tool's input schema? JSON Schema 2020-12, or the dialect that ``$schema`` names.

Compiled once for each definition. Nothing is ever fetched: a ``$ref`` that leaves the document makes the tool
uncallable, with a message that says so. Backtracking of patterns is bounded. Messages hold no argument's value.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import jsonschema_rs
import msgspec

from gateway.errors import BackendUnavailable, InvalidArguments
from gateway.models import Call

MAX_VIOLATIONS = 20
_KEPT = 4096
_SHOWN = 160


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any) -> bool:
        """Whether it fits."""
        ...

    def iter_errors(self, instance: Any) -> Any:
        """Each way in which it does not."""
        ...


class Validate:
    """The check; keeps compiled schemas by their JSON text."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, Validator] = OrderedDict()

    async def __call__(self, call: Call) -> None:
        """Allow, or raise ``InvalidArguments`` with every violation and its path."""
        if call.entry.kind != "tool":
            return
        schema = call.entry.input_schema
        validator = self._compiled.get(schema) or self._compile(schema, call.entry.name)
        if not validator.is_valid(call.arguments) and not _fits_without_nulls(validator, call.arguments):
            raise _refusal(call.entry.name, validator, call.arguments)

    def _compile(self, schema: bytes, name: str) -> Validator:
        try:
            validator = compile_schema(schema)
        except (ValueError, jsonschema_rs.ReferencingError):
            raise BackendUnavailable(
                f"The input schema of {name} is no usable JSON Schema by itself, so no call can be checked.",
                dispatched=False,
                retryable=False,
                hint="The owner of the tool has to mend its input schema.",
            ) from None
        self._compiled[schema] = validator
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return validator


def compile_schema(schema: bytes) -> Validator:
    """Compile the JSON text of a schema.

    Raises:
        ValueError: it is no valid schema, or refers to something outside itself.
        jsonschema_rs.ReferencingError: a reference in it leads nowhere.
    """
    return jsonschema_rs.validator_for(
        msgspec.json.decode(schema),
        offline=True,
        mask="the value",
        pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1 << 20),
    )


def _fits_without_nulls(validator: Validator, arguments: Any) -> bool:
    """A null for an optional argument counts as absent, as it does for the mirrored headers (``basic/transports``).

    Only where the null itself is what does not fit: one for an argument that the schema does not know stays.
    """
    if None not in arguments.values():
        return False
    nulls = {str(path[0]) for error in validator.iter_errors(arguments) if len(path := error.instance_path) == 1}
    kept = {name: value for name, value in arguments.items() if value is not None or name not in nulls}
    return len(kept) < len(arguments) and validator.is_valid(kept)


def _refusal(name: str, validator: Validator, arguments: Any) -> InvalidArguments:
    violations: list[dict[str, str]] = []
    for error in validator.iter_errors(arguments):
        if len(violations) == MAX_VIOLATIONS:
            break
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        violations.append({"path": f"arguments{path}", "problem": str(error.message)[:_SHOWN]})
    first = "; ".join(f"{item['path']}: {item['problem']}" for item in violations[:3])
    return InvalidArguments(
        f"The arguments do not fit the input schema of {name}: {first}",
        violations=violations,
        hint="Correct the arguments and call again.",
    )
