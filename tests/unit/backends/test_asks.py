"""Which capabilities a backend's questions need."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.asks import NoQuestion, missing_capability, undeclared

FORM = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}}
URL = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x"}}
SAMPLING = {"method": "sampling/createMessage", "params": {"messages": []}}
TOOLS = {"method": "sampling/createMessage", "params": {"tools": []}}
CHOICE = {"method": "sampling/createMessage", "params": {"toolChoice": {"mode": "auto"}}}
ROOTS = {"method": "roots/list"}


@pytest.mark.parametrize(
    ("request_", "capabilities", "lacking"),
    [
        (FORM, {}, {"elicitation": {"form": {}}}),
        (FORM, {"elicitation": {}}, {}),
        (FORM, {"elicitation": {"form": {}}}, {}),
        (FORM, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        (FORM, {"elicitation": None}, {"elicitation": {"form": {}}}),
        (FORM, {"elicitation": True}, {"elicitation": {"form": {}}}),
        (URL, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        (URL, {"elicitation": {"url": {}}}, {}),
        (URL, {"elicitation": {"url": None}}, {"elicitation": {"url": {}}}),
        (SAMPLING, {}, {"sampling": {}}),
        (SAMPLING, {"sampling": {}}, {}),
        (TOOLS, {"sampling": {}}, {"sampling": {"tools": {}}}),
        (CHOICE, {"sampling": {}}, {"sampling": {"tools": {}}}),
        (TOOLS, {"sampling": {"tools": {}}}, {}),
        (ROOTS, {}, {"roots": {}}),
        (ROOTS, {"roots": {"listChanged": True}}, {}),
    ],
)
def test_a_question_needs_its_capability(request_: Any, capabilities: Any, lacking: Any) -> None:
    assert undeclared([request_], capabilities) == lacking


def test_all_that_is_lacking_is_named_at_once() -> None:
    lacking = undeclared([FORM, URL, TOOLS, SAMPLING, ROOTS], {})

    assert lacking == {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
    error = missing_capability("deploy", lacking)
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": lacking}
    assert "elicitation.form.url, sampling.tools, roots" in error["message"]


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        {},
        {"method": "tools/call"},
        {"method": 1},
        {"method": "elicitation/create", "params": {"mode": "telepathy"}},
        {"method": "elicitation/create", "params": {"mode": None}},
    ],
)
def test_nothing_else_is_a_question(request_: Any) -> None:
    with pytest.raises(NoQuestion):
        undeclared([request_], {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}})


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text(), st.lists)))
def test_no_capabilities_whatever_their_shape_raise_anything(capabilities: Any) -> None:
    assert set(undeclared([FORM, SAMPLING, ROOTS], capabilities)) <= {"elicitation", "sampling", "roots"}
