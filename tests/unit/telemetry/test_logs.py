import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.logs import configure, formatter

NASTY = [
    "\n",
    "\r\n",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",
    "\ud800",
    '"}\n{"event":"forged"}',
]
TEXT = st.text() | st.lists(st.sampled_from(NASTY) | st.text(max_size=3)).map("".join)
JSON_LINE, FOR_PEOPLE = formatter(human=False), formatter(human=True)
_COLOURS = re.compile(r"\x1b\[\d+m")


def record(message: str, *arguments: Any, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    found = logging.LogRecord("gateway.x", logging.ERROR, __file__, 1, message, arguments, None)
    if error is not None:
        try:
            raise error
        except BaseException:  # noqa: BLE001 - to have its traceback
            found.exc_info = sys.exc_info()
    for name, value in extra.items():
        setattr(found, name, value)
    return found


@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT), TEXT)
def test_a_line_is_one_json_object_in_printable_ascii_whatever_is_in_it(
    said: str, extra: str, nested: dict[str, str], failure: str
) -> None:
    line = JSON_LINE.format(record("failed: %s", said, error=ValueError(failure), route=extra, more=nested))
    assert all(" " <= character <= "~" for character in line)
    found = json.loads(line)
    assert (found["event"], found["route"], found["more"], found["level"]) == (
        f"failed: {said}",
        extra,
        nested,
        "error",
    )
    assert "ValueError" in found["exception"]


@given(TEXT, TEXT)
def test_text_for_people_steers_no_terminal_and_only_the_message_has_lines(said: str, extra: str) -> None:
    text = _COLOURS.sub("", FOR_PEOPLE.format(record("failed: %s", said, route=extra)))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count("\n") == said.count("\n")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_libraries_are_heard_from_warnings_on(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    logging.getLogger("httpx2").info("GET http://secret.internal")
    logging.getLogger("httpx2").warning("odd")
    logging.getLogger("gateway.x").info("ready")
    logging.getLogger("gateway.x").debug("detail")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [("httpx2", "odd"), ("gateway.x", "ready")]


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(False, "", False), (True, "", True), (True, "1", False)]
)
def test_text_for_people_is_coloured_on_a_terminal_alone(
    terminal: bool, no_color: str, coloured: int, root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("NO_COLOR", no_color)
    configure("WARNING", human=True)
    root.warning("hello")
    assert "hello" in stream.getvalue()
    assert ("\x1b" in stream.getvalue()) == bool(coloured)
