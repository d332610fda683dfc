"""routes.yaml from text to ``Routes``, or every error at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from gateway.errors import ConfigError, Problem
from gateway.routes import checks, document, report
from gateway.routes.document import Fault, Location, Node
from gateway.routes.models import Routes

MAX_BYTES = 1 << 20

_WHERE = "put your routes.yaml there, or name another file with GATEWAY_CONFIG"


def load(path: Path, environ: Mapping[str, str]) -> Routes:
    """Read the file and what it refers to.

    Raises:
        ConfigError: with everything that is wrong.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            [
                Problem(
                    source,
                    None,
                    "",
                    f"cannot be read: {reason}",
                    "put your routes.yaml there, or name another file with GATEWAY_CONFIG",
                )
            ]
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(source, line, "", "is not UTF-8 text", "save it as UTF-8")]) from None
    return parse(text, source=source, environ=environ)


def parse(text: str, *, source: str, environ: Mapping[str, str]) -> Routes:
    """The same from text; ``source`` is what problems call the file.

    Raises:
        ConfigError: with everything that is wrong.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigError([Problem(source, None, "", "is larger than 1MiB", "split the gateway by teams")])
    try:
        root, found = document.read(text)
    except document.Unreadable as error:
        raise _error(source, [error.fault]) from None
    if root is None or not isinstance(root.value, dict):
        raise _error(source, [Fault(1, (), "is not a mapping", "begin with routes:, see docs/configuration.md")])
    return _validated(root, found, source, environ)


def _validated(root: Node, found: list[Fault], source: str, environ: Mapping[str, str]) -> Routes:
    routes: Routes | None = None
    try:
        routes = Routes.model_validate(root.value, context={"environ": environ})
    except ValidationError as error:
        found = [*found, *report.faults(error, root)]
    found = [*found, *_crossed(root, routes)]
    if routes is None or found:
        raise _error(source, found)
    return routes


def _crossed(root: Node, routes: Routes | None) -> Iterator[Fault]:
    yield from (Fault(root.line_of(where), where, what, hint) for where, what, hint in checks.of_values(root.value))
    if routes is not None:
        yield from (Fault(root.line_of(where), where, what, hint) for where, what, hint in checks.of_models(routes))


def _error(source: str, found: list[Fault]) -> ConfigError:
    """In the order of the file; of several about one place, the first that was found."""
    places: dict[Location, Fault] = {}
    for fault in found:
        places.setdefault(fault.location, fault)
    ordered = sorted(places.values(), key=lambda fault: fault.line)
    return ConfigError(
        Problem(source, fault.line, document.render(fault.location), fault.message, fault.hint) for fault in ordered
    )
