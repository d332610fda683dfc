"""How runs of the conformance suites are read, compared and judged."""

import pytest

from .scores import ABSENT, ExpectationsError, Worse, compare, expectations, judge, label, passes, score


def _check(identity: str, status: str = "SUCCESS", name: str = "") -> dict[str, str]:
    return {"id": identity, "name": name, "status": status}


def test_a_check_is_named_by_its_id_and_a_repeated_id_by_its_name_and_number() -> None:
    checks = [_check("a"), _check("b", name="x"), _check("b", name="x"), _check("b", "FAILURE", "y")]
    assert label(checks) == {"a": "SUCCESS", "b/x": "SUCCESS", "b/x#2": "SUCCESS", "b/y": "FAILURE"}


def test_notes_of_single_messages_are_left_out() -> None:
    assert label([_check("request", "INFO"), _check("request", "INFO"), _check("once", "INFO")]) == {"once": "INFO"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SUCCESS", "WARNING"),
        ("SUCCESS", "FAILURE"),
        ("SUCCESS", "SKIPPED"),
        ("SUCCESS", None),
        ("WARNING", "FAILURE"),
        ("WARNING", None),
        ("INFO", "FAILURE"),
        (None, "FAILURE"),
        (None, "SKIPPED"),
    ],
)
def test_a_check_that_fails_warns_skips_or_is_absent_only_through_the_gateway_is_worse(
    before: str | None, after: str | None
) -> None:
    direct = {"s": {"c": before} if before else {}}
    through = {"s": {"c": after} if after else {}}
    assert compare(direct, through) == [Worse("s", "c", before or ABSENT, after or ABSENT)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SUCCESS", "SUCCESS"),
        ("SUCCESS", "INFO"),
        ("WARNING", "WARNING"),
        ("WARNING", "SUCCESS"),
        ("FAILURE", "SUCCESS"),
        ("FAILURE", None),
        ("SKIPPED", "SKIPPED"),
        ("INFO", None),
        (None, "SUCCESS"),
    ],
)
def test_the_same_or_better_is_not_worse(before: str | None, after: str | None) -> None:
    assert compare({"s": {"c": before} if before else {}}, {"s": {"c": after} if after else {}}) == []


def test_a_scenario_that_did_not_run_through_the_gateway_is_worse_in_every_check() -> None:
    assert compare({"s": {"a": "SUCCESS", "b": "SUCCESS"}}, {}) == [
        Worse("s", "a", "SUCCESS", ABSENT),
        Worse("s", "b", "SUCCESS", ABSENT),
    ]


def test_a_warning_does_not_fail_a_scenario_and_a_failure_does() -> None:
    assert passes({"a": "SUCCESS", "b": "WARNING", "c": "SKIPPED"})
    assert not passes({"a": "SUCCESS", "b": "FAILURE"})


def test_a_required_scenario_that_did_not_run_counts_as_not_passed() -> None:
    found = score({"a": {"c": "SUCCESS"}, "unscored": {"c": "FAILURE"}}, ["a", "b"])
    assert (found.passed, found.scenarios) == (1, 2)
    assert str(found) == "1/2 (1 ok)"


def test_what_is_worse_without_a_reason_is_unexpected_and_a_reason_without_it_is_stale() -> None:
    worse = [Worse("s", "known", "SUCCESS", "FAILURE"), Worse("s", "new", "SUCCESS", "FAILURE")]
    verdict = judge(worse, {"s": {"known": "because", "gone": "because"}}, ["s"])
    assert verdict.unexpected == [worse[1]]
    assert verdict.expected == [(worse[0], "because")]
    assert verdict.stale == ["s: gone"]


def test_an_expectation_is_not_stale_where_its_scenario_did_not_run() -> None:
    assert judge([], {"other": {"c": "because"}}, ["s"]).stale == []


def test_expectations_are_read_by_set_scenario_and_check() -> None:
    document = {"one": [{"scenario": "s", "reason": "not\n yet", "checks": ["a", "b"]}]}
    assert expectations(document, ["one", "two"]) == {"one": {"s": {"a": "not yet", "b": "not yet"}}, "two": {}}


@pytest.mark.parametrize(
    "document",
    [
        {"unknown": []},
        {"one": [{"scenario": "s", "checks": ["a"]}]},
        {"one": [{"scenario": "s", "checks": ["a"], "reason": "  "}]},
        {"one": [{"scenario": "s", "checks": [], "reason": "because"}]},
        {"one": [{"scenario": "s", "checks": ["a", "a"], "reason": "because"}]},
    ],
)
def test_expectations_without_reason_or_checks_or_of_unknown_sets_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(ExpectationsError):
        expectations(document, ["one"])
