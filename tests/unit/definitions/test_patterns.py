"""A pattern that can be made to run for long is known by its form."""

from __future__ import annotations

import re
import time

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions.patterns import BACKTRACKS, cost, is_bounded, is_linear

EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"  # of Zod
DURATION = r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
PASSWORD = r"^(?=.*[A-Z])(?=.*\d)(?=.*[^\w]).{8,}$"


@pytest.mark.parametrize(
    "pattern", [r"^(a+)+$", r"^(a|a)*$", r"[\p{L}\p{N}]{1,60}", r"^.{1,1000}$", "", r"^[a-z(?=]*$", r"\\1"]
)
def test_what_needs_no_step_back_is_linear(pattern: str) -> None:
    assert is_linear(pattern)


@pytest.mark.parametrize("pattern", [EMAIL, DURATION, PASSWORD, r"(?<!a)b", r"^(?!-)[a-z-]+(?<!-)$", r"(?:(?=a)b){1}"])
def test_what_people_write_with_a_look_around_is_bounded(pattern: str) -> None:
    assert not is_linear(pattern)
    assert is_bounded(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(\w)\1",
        r"(?P<a>x)\k<a>",
        r"(?:\w(?=\w*))*z",
        r"((?=a)b)+",
        r"(x(y(?!z))){2}",
        r"((?=a)){0,100}",
        r"((?=a)){5}",
        r"((?=a)){1,}",
        r"(?=a(?=b))",
        r"(?=(?:\w(?=(?:\w(?=\w*))*))*)z",
        "(?=a)" * 9,
        r"(?(1)a|b)",
        r"(?:[a[^])]]\w(?=\w*))*z",
        r"(?x)# [" + "\n" + r"(?:\w(?=\w*))*z # ]",
        r"(?=a))",
        r"((?=a)",
    ],
)
def test_what_steps_back_without_bound_is_not(pattern: str) -> None:
    assert not is_bounded(pattern)


@pytest.mark.parametrize(
    "pattern", [r"[(?=](?=a)[)]*", r"\((?=a)\)*", r"(?=[)(]a)", r"(?=\]a)[\]()]*", r"(?=a)[[:alpha:](]*"]
)
def test_brackets_and_escapes_open_no_group(pattern: str) -> None:
    assert is_bounded(pattern)


@given(st.text(st.sampled_from(r"()[]\*+?{}=!<:|a1,^-"), max_size=30))
def test_any_text_is_judged(pattern: str) -> None:
    assert is_bounded(pattern) in (True, False)
    if is_bounded(pattern) and "[" not in pattern and "\\" not in pattern:
        assert len(re.findall(r"\(\?<?[=!]", pattern)) <= 8


@pytest.mark.parametrize(
    "pattern", [EMAIL, DURATION, PASSWORD, r"(?=\w*\w*)z", r"^(\w*)(?!\w*\w*)z", r"(?=x?)\w+(?!\w)y"]
)
def test_the_cost_that_is_said_is_not_exceeded_by_much(pattern: str) -> None:
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS)
    validator = jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
    for length in (100, 2_000, 4_000):
        began = time.process_time()
        validator.is_valid("a" * length + "!")
        assert time.process_time() - began < 20 * cost(length) * 1e-8
