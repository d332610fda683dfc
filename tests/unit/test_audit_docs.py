import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.audit import Verifier, redaction

TEXT = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
EXAMPLE = re.findall(r"^\{\"v\":1.*\n", TEXT, re.MULTILINE)


def rows(heading):
    section = TEXT.split(heading)[1].split("\n#")[0]
    return re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)


def test_every_outcome_is_explained():
    assert {row.strip("`") for row in rows("### Outcomes")} == errors.outcomes()


def test_the_example_is_a_chain_that_verifies():
    verifier = Verifier()
    for line in EXAMPLE:
        verifier.feed(line.encode())
    report = verifier.report()
    assert (report.ok, report.records, report.open_intents) == (True, 2, ())


def test_every_field_of_the_example_is_explained_in_its_order():
    explained = [name for row in rows("## A record") for name in re.findall(r"`(\w+)`", row)]
    positions = [EXAMPLE[0].index(f'"{name}":') for name in explained]
    assert positions == sorted(positions)
    assert len(explained) == 27


@pytest.mark.parametrize("name", re.findall(r"`([a-z_]+)`", TEXT.split("it contains")[1].split("in any case")[0]))
def test_every_secret_name_of_the_page_is_hidden(name):
    assert redaction.redact({f"my-{name.upper()}2": 1}) == {f"my-{name.upper()}2": redaction.REDACTED}
