"""Where in routes.yaml a rule stands: the paths that audit and refusals quote, such as ``routes.deploy.scopes``."""

from __future__ import annotations

from pathlib import Path

from gateway.routes import document
from gateway.routes.document import Node


class Places:
    """The lines of one routes file, which has loaded."""

    def __init__(self, text: str) -> None:
        self._root, _faults = document.read(text)

    @classmethod
    def of(cls, path: Path) -> Places:
        """Those of a file.

        Raises:
            OSError: it cannot be read.
        """
        return cls(path.read_text(encoding="utf-8"))

    def line_of(self, rule: str) -> int | None:
        """The line where the rule stands, counted from 1; None where the file does not have it."""
        return _line(self._root, rule) if self._root else None


def _line(node: Node, path: str) -> int | None:
    """Keys may contain dots, so every key that the path begins with is tried, the longest first."""
    for name, child, line in sorted(_named(node), key=lambda one: -len(one[0])):
        if path == name:
            return line
        if path.startswith(name) and path[len(name)] in ".[":
            found = _line(child, path[len(name) :].removeprefix("."))
            if found is not None:
                return found
    return None


def _named(node: Node) -> list[tuple[str, Node, int]]:
    """What a path may say next. An entry of a list goes by its index, and by its ``name`` where it has one."""
    if isinstance(node.value, dict):
        return [(str(key), child, node.key_lines[str(key)]) for key, child in node.children.items()]
    named = [(f"[{index}]", child, child.line) for index, child in node.children.items()]
    named += [(str(name), child, line) for child in node.children.values() for name, line in [_name_of(child)] if name]
    return named


def _name_of(node: Node) -> tuple[str | None, int]:
    name = node.children.get("name")
    return (str(name.value), node.line) if name is not None else (None, 0)
