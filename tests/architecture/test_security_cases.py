"""The security cases are true: their tests exist, and every promise has cases of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security_cases import CASES, Case

TESTS = Path(__file__).parents[1]


def _missing(node: str) -> bool:
    """Whether there is no such test, or the file does not name its parameter."""
    file, _, rest = node.partition("::")
    names, _, parameter = rest.removesuffix("]").partition("[")
    *classes, function = names.split("::")
    path = TESTS / file
    if not path.is_file():
        return True
    source = path.read_text(encoding="utf-8")
    patterns = [*(rf"^class {name}:" for name in classes), rf"^{'    ' * len(classes)}(async )?def {function}\("]
    defined = all(re.search(pattern, source, re.MULTILINE) for pattern in patterns)
    return not defined or (parameter != "" and f'"{parameter}"' not in source)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.promise} {case.text}")
def test_a_case_names_tests_that_exist(case: Case) -> None:
    assert case.tests
    assert [node for node in case.tests if _missing(node)] == []
    assert len(set(case.tests)) == len(case.tests)


def test_every_promise_has_cases_and_each_is_said_once() -> None:
    assert list(dict.fromkeys(case.promise for case in CASES)) == [f"P{number}" for number in range(1, 16)]
    texts = [case.text for case in CASES]
    assert len(set(texts)) == len(texts) > 70
    assert all(text.endswith(".") for text in texts)


def test_what_is_missing_is_found_out() -> None:
    assert _missing("unit/none.py::test_x")
    assert _missing("unit/test_errors.py::test_none")
    assert _missing("unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[none such]")
