from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.units import LARGEST, LONGEST, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("10m", 600.0), ("250ms", 0.25), ("6h", 21_600.0), ("1d", 86_400.0), ("0s", 0.0)],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "30", "s", "-1s", "1.5s", "1 s", "30S", "30s ", "٣s", 30, 1.5, None, True, ["1s"]]
)
def test_what_is_no_duration_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration") as caught:
        parse_duration(value)
    assert "such as" in caught.value.args[1]


def test_a_number_without_a_unit_is_told_the_unit() -> None:
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(45)
    assert caught.value.args[1] == "give it a unit, such as 45s"


@pytest.mark.parametrize("text", ["367d", "999999999999s"])
def test_more_than_a_year_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a year"):
        parse_duration(text)


@given(st.integers(0, int(LONGEST * 1000)))
def test_every_duration_survives_being_written_and_read(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= parse_duration(text) <= LONGEST


@pytest.mark.parametrize(
    ("value", "size"), [("16MiB", 16 << 20), ("1KiB", 1024), ("2GiB", 2 << 30), ("5B", 5), (4096, 4096)]
)
def test_a_size_is_read_in_bytes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "16", "16MB", "16 MiB", "-1MiB", "1.5MiB", True, 1.5, None])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(value)


@pytest.mark.parametrize("value", [LARGEST + 1, "1025GiB"])
def test_more_than_a_tebibyte_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="larger than"):
        parse_size(value)


@given(st.integers(0, LARGEST))
def test_every_size_survives_being_written_and_read(size: int) -> None:
    assert parse_size(format_size(size)) == size
