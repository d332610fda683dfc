"""Do the arguments fit the tool's input schema? JSON Schema 2020-12, or the dialect that ``$schema`` names.

Compiled once for each definition, or found unusable once. Nothing is ever fetched, and the time that a schema can take
is bounded (``definitions.schemas``). Messages hold no argument's value.
"""

from __future__ import annotations

from typing import Any

from gateway.definitions.schemas import Exhausting, Unusable, Validator, compiled
from gateway.errors import BackendUnavailable, InvalidArguments
from gateway.models import Call, Entry

MAX_VIOLATIONS = 20
_SHOWN = 160
_AT_HAND = 8192


class Validate:
    """The check; has at hand what the schemas of calls were compiled to, by their text."""

    def __init__(self) -> None:
        self._at_hand: dict[bytes, Validator] = {}

    def __call__(self, call: Call) -> None:
        """Allow, or raise ``InvalidArguments`` with every violation and its path."""
        if call.entry.kind != "tool":
            return
        validator = self._at_hand.get(call.entry.input_schema) or self._fetched(call.entry)
        try:
            fits = validator.is_valid(call.arguments) or _fits_without_nulls(validator, call.arguments)
        except Exhausting:
            raise _exhausting(call.entry.name) from None
        if not fits:
            raise _refusal(call.entry.name, validator, call.arguments)

    def _fetched(self, tool: Entry) -> Validator:
        try:
            validator = compiled(tool.input_schema)
        except Unusable:
            raise _unusable(tool.name) from None
        if len(self._at_hand) >= _AT_HAND:
            self._at_hand.clear()
        self._at_hand[tool.input_schema] = validator
        return validator


def _unusable(name: str) -> BackendUnavailable:
    """The catalogue leaves such tools out; this one is only met where it does not look."""
    return BackendUnavailable(
        f"The input schema of {name} is no usable JSON Schema by itself, so no call can be checked.",
        dispatched=False,
        retryable=False,
        hint="The owner of the tool has to mend its input schema.",
    )


def _exhausting(name: str) -> InvalidArguments:
    return InvalidArguments(
        f"The arguments of {name} are too many, too long or nested too deep to be held against its input schema.",
        violations=[{"path": "arguments", "problem": "too much to check"}],
        hint="Send less in one call.",
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
