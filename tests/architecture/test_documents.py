"""The documentation is true: what it names exists, and what exists is named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gateway import errors
from gateway.cli import app
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
SKIPPED = {"node_modules", "var", "dist", "out", "__pycache__"}

AWAITED_COMMANDS: set[str] = set()
"""Commands that pages name and the command line lacks."""

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(?<![\w/.-])make ([a-z][a-z-]*)")
COMMAND = re.compile(r"(?:(?<![\w/.-])|\.venv/bin/)mcp-gateway ([a-z]+)(?: ([a-z]+))?")
SETTING = re.compile(r"(?<![A-Z_])GATEWAY_([A-Z0-9_]*[A-Z0-9])")
TEST = re.compile(r"`(test_[a-z0-9_]+)`")


def _pages(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in SKIPPED:
            yield from _pages(path)
        elif path.suffix == ".md":
            yield path.relative_to(ROOT)


PAGES = list(_pages())


def _read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _code(path: Path) -> str:
    return "\n".join(CODE.findall(_read(path)))


def _anchors(path: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", _read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", _read(page))):
        place, _hash, fragment = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_make_target_that_a_page_names_exists() -> None:
    existing = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    named = {target for page in PAGES for target in TARGET.findall(_code(page))}
    assert named - existing == set()


def test_the_readme_names_every_target_that_a_newcomer_needs() -> None:
    assert {"install", "run", "test", "check"} <= set(TARGET.findall(_read("README.md")))


def _commands(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} ")
        else:
            yield prefix + name


COMMANDS = set(_commands(typer.main.get_command(app)))


def _named_commands(text: str) -> Iterator[str]:
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    for first, second in COMMAND.findall(text):
        yield f"{first} {second}" if first in groups and second else first


def test_every_command_that_a_page_names_exists() -> None:
    named = {name for page in PAGES for name in _named_commands(_code(page))}
    named |= set(_named_commands(_read("config/routes.yaml")))
    assert named - COMMANDS == AWAITED_COMMANDS


def test_the_readme_names_every_command() -> None:
    assert COMMANDS - set(_named_commands(_read("README.md"))) == set()


def test_every_setting_that_a_page_names_exists() -> None:
    known = {name.upper() for name in Settings.model_fields}
    assert {(str(page), name) for page in PAGES for name in SETTING.findall(_read(page)) if name not in known} == set()


def test_every_setting_is_in_the_reference() -> None:
    page = _read("docs/configuration.md")
    assert [name for name in Settings.model_fields if f"`GATEWAY_{name.upper()}`" not in page] == []


def _outcomes(kind: type[errors.Refusal] = errors.Refusal) -> Iterator[str]:
    for each in kind.__subclasses__():
        yield each.outcome
        yield from _outcomes(each)


def test_every_outcome_is_explained_where_the_audit_is() -> None:
    page = _read("docs/audit.md")
    assert [word for word in sorted(set(_outcomes())) if f"`{word}`" not in page] == []


def test_every_outcome_of_a_refusal_is_in_the_protocol_s_table() -> None:
    page = _read("docs/protocol.md")
    assert {word for word in _outcomes() if f"`{word}`" not in page} == set()


def test_the_architecture_names_every_top_level_module() -> None:
    page = _read("docs/architecture.md")
    modules = [
        f"gateway/{path.name}/" if path.is_dir() else f"gateway/{path.name}"
        for path in sorted((ROOT / "gateway").iterdir())
        if (path.suffix == ".py" or path.is_dir()) and path.name not in {"__init__.py", "__pycache__"}
    ]
    assert [module for module in modules if f"`{module}`" not in page] == []


def test_the_architecture_names_no_module_that_is_gone() -> None:
    named = re.findall(r"`(gateway/[\w/.]+)`", _read("docs/architecture.md"))
    assert [module for module in named if not (ROOT / module).exists()] == []


def test_decisions_are_numbered_without_gaps_and_say_all_that_one_needs() -> None:
    decisions = sorted((ROOT / "docs/adr").iterdir())
    assert [path.name[:5] for path in decisions] == [f"{number:04}-" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: ")
        assert [part for part in ("**Context.**", "**Decision.**", "**Consequences.**") if part not in text] == []


def test_every_runtime_dependency_has_its_reason_and_no_other() -> None:
    project = tomllib.loads(_read("pyproject.toml"))["project"]
    declared = {re.split(r"[\[<>=;~! ]", line, maxsplit=1)[0] for line in project["dependencies"]}
    explained = set(re.findall(r"^\| `([^`]+)` \|", _read("docs/adr/0009-dependencies.md"), re.MULTILINE))
    assert explained == declared


def test_every_test_that_a_page_names_exists() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert {(str(page), name) for page in PAGES for name in TEST.findall(_read(page)) if name not in defined} == set()


def test_every_promise_is_there_with_the_tests_that_hold_it() -> None:
    parts = re.split(r"^### (P\d+)\. ", _read("docs/security.md"), flags=re.MULTILINE)
    promises = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(promises) == [f"P{number}" for number in range(1, 16)]
    assert [name for name, text in promises.items() if "](../tests/" not in text] == []


def test_every_trap_names_a_test_that_holds_it() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", _read("docs/traps.md"), re.MULTILINE)
    assert [int(number) for number, _held in rows] == list(range(1, 36))
    assert [number for number, held in rows if not TEST.search(held)] == []
