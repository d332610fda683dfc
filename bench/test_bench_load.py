"""The load generator sees every wrong answer. Without this, "no wrong answer" would mean nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from measure import Load, Sample, compile_load
from targets import HERE, free_port, listens, process, wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("taskset")), reason="needs a C compiler and taskset"
)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return Load(compile_load(tmp_path_factory.mktemp("load")), core=0)


def sample(load: Load, tmp_path: Path, fault: str) -> Sample:
    port, log = free_port(), tmp_path / "backend.log"
    with process(0, [sys.executable, str(HERE / "backend.py"), str(port)], log, {"BENCH_FAULT": fault}) as child:
        wait_until(lambda: listens(port), child, log, "backend")
        return load.run(port, "echo", 4, 0.2, None, child.pid)


def test_right_answers_are_counted(load: Load, tmp_path: Path) -> None:
    found = sample(load, tmp_path, "")
    assert found.answers > 100
    assert found.wrong == 0
    assert 0 < found.p50_us <= found.p99_us
    assert found.rss_mb > 1


@pytest.mark.parametrize("fault", ["id", "token", "error", "is_error", "status"])
def test_every_wrong_answer_is_counted(load: Load, tmp_path: Path, fault: str) -> None:
    found = sample(load, tmp_path, fault)
    assert found.wrong == found.answers > 100
    assert found.first_wrong.startswith({"is_error": "isError"}.get(fault, fault))


def test_a_connection_that_ends_before_the_answer_is_wrong(load: Load, tmp_path: Path) -> None:
    found = sample(load, tmp_path, "close")
    assert found.answers == 0
    assert found.wrong > 4


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Processes end with the test that started them."""
    yield
    assert not [entry for entry in Path("/proc/self/task").glob("*/children") if entry.read_text().strip()]
