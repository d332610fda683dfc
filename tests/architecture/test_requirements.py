"""The requirements manifest is true: its tests exist, and no requirement is without one or a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import REQUIREMENTS, Requirement

TESTS = Path(__file__).parents[1]


def _defined(path: Path) -> Iterator[str]:
    """The tests of a file as pytest names them, without running it: functions and methods of ``Test…`` classes."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from (f"{node.name}::{name}" for name in _tests(node.body))
    yield from _tests(ast.parse(path.read_text(encoding="utf-8")).body)


def _tests(body: list[ast.stmt]) -> Iterator[str]:
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return (node.name for node in functions if node.name.startswith("test_"))


def _missing(node: str) -> bool:
    file, _, name = node.partition("::")
    path = TESTS / file
    return not path.is_file() or name not in set(_defined(path))


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda it: it.id)
def test_a_requirement_names_tests_that_exist_or_says_why_there_is_none(requirement: Requirement) -> None:
    assert [node for node in requirement.tests if _missing(node)] == []
    assert len(set(requirement.tests)) == len(requirement.tests)
    assert bool(requirement.tests) != requirement.reason.startswith("not applicable because ")
    assert not (requirement.tests and requirement.reason)


def test_every_requirement_has_an_id_of_its_own_a_level_and_a_page() -> None:
    ids = [requirement.id for requirement in REQUIREMENTS]
    assert len(set(ids)) == len(ids) > 120
    assert {requirement.level for requirement in REQUIREMENTS} == {"must", "should", "may", "note", "gateway"}
    assert all(requirement.page and requirement.behaviour.endswith(".") for requirement in REQUIREMENTS)
