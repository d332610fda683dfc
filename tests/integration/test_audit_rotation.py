"""A log in several files: rotated by itself or by others, and judged as one."""

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.audit import AuditEvent, Encoder
from gateway.settings import Settings
from gateway.stores.audit_files import ROTATION_RETRY, FileSink, head_path
from gateway.stores.audit_reader import judge, log_files, verify
from gateway.stores.audit_rotation import Rotation, began_at, former_files
from gateway.stores.audit_sinks import open_sinks

KEY = b"k" * 32
SMALL = Rotation(max_bytes=900)
CHILD = """
import sys
import time
from pathlib import Path
from gateway.audit import AuditEvent, Encoder
from gateway.stores.audit_files import FileSink
from gateway.stores.audit_rotation import Rotation

path, name = sys.argv[1:]
sink = FileSink(Path(path), name, b"k" * 32, rotation=Rotation(max_bytes=20_000))
for at in range(400):
    sink.write([Encoder().encode(AuditEvent(f"{name}-{at}"), "request", time.time())], sync=False)
sink.close()
"""


class Clock:
    """Seconds since the epoch, and monotonic ones, that a test moves."""

    def __init__(self) -> None:
        self.now = 1_764_028_800.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "audit.jsonl"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sink_of(path: Path, clock: Clock, rotation: Rotation = SMALL, writer: str = "w") -> FileSink:
    return FileSink(path, writer, KEY, rotation=rotation, clock=clock, now=clock)


def write(sink: FileSink, clock: Clock, *names: str) -> None:
    for name in names:
        clock.now += 1
        sink.write([Encoder().encode(AuditEvent(name), "request", clock.now)], sync=False)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["request_id"] for line in path.read_bytes().splitlines()]


def test_a_full_file_is_followed_by_a_new_one_and_all_are_one_log(path: Path, clock: Clock) -> None:
    sink = sink_of(path, clock)
    write(sink, clock, *"abcdefg")
    sink.close()
    files = log_files([str(path.parent)])
    assert [ids(file) for file in files] == [["a", "b"], ["c", "d"], ["e", "f"], ["g"]]
    assert files == [*former_files(path), path]
    assert files[0].name == "audit.jsonl.20251125T000003.000000Z"
    report = verify(files, KEY)
    assert (report.problems, report.records, report.writers, report.signed) == ((), 7, 1, True)


def test_an_old_file_is_followed_by_a_new_one_also_after_a_restart(path: Path, clock: Clock) -> None:
    daily = Rotation(max_age=86_400)
    sink = sink_of(path, clock, daily)
    write(sink, clock, "a")
    clock.now += 80_000
    write(sink, clock, "b")
    sink.close()
    clock.now += 10_000
    sink = sink_of(path, clock, daily, "next")
    write(sink, clock, "c")
    clock.now += 80_000
    write(sink, clock, "d")
    sink.close()
    files = log_files([str(path.parent)])
    assert [ids(file) for file in files] == [["a", "b"], ["c", "d"]]
    assert verify(files, KEY).ok


def test_so_many_former_files_are_kept_and_nothing_else_is_touched(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    bystanders = [path.with_name(name) for name in ("audit.jsonl.1", "audit.jsonl.notes", "other.jsonl")]
    for bystander in bystanders:
        bystander.write_text("")
    sink = sink_of(path, clock, Rotation(max_bytes=900, keep=2))
    write(sink, clock, *map(str, range(11)))
    sink.close()
    assert [ids(file) for file in former_files(path)] == [["6", "7"], ["8", "9"]]
    assert all(bystander.exists() for bystander in bystanders)
    kept = log_files([*map(str, former_files(path)), str(path)])
    assert "begins with record 7" in verify(kept, KEY).problems[0].message
    assert verify(kept, KEY, partial=True).ok


@pytest.mark.parametrize("bound", ["GATEWAY_AUDIT_MAX_BYTES", "GATEWAY_AUDIT_MAX_AGE_SECONDS"])
def test_the_settings_say_when_a_file_is_followed_and_how_many_stay(path: Path, clock: Clock, bound: str) -> None:
    names = [f"{at}{'x' * 800}" for at in range(100)] if bound.endswith("BYTES") else ["a"]
    long_ago = sink_of(path, clock, Rotation())
    write(long_ago, clock, *names)
    long_ago.close()
    oldest = path.with_name(f"{path.name}.20200101T000000.000000Z")
    oldest.write_text("")
    environ = {"GATEWAY_AUDIT": f"file:{path}", bound: "65536", "GATEWAY_AUDIT_KEEP": "1"}
    (sink,) = open_sinks(Settings.load(environ), KEY)
    sink.write([Encoder().encode(AuditEvent("next"), "request", 0.0)], sync=False)
    sink.close()
    (former,) = former_files(path)
    assert (ids(former), ids(path)) == (names, ["next"])


def test_files_of_one_moment_have_names_of_their_own(path: Path, clock: Clock) -> None:
    sink = sink_of(path, clock)
    for name in "abcdef":
        sink.write([Encoder().encode(AuditEvent(name), "request", clock.now)], sync=False)
    assert [ids(file) for file in [*former_files(path), path]] == [["a", "b"], ["c", "d"], ["e", "f"]]


def test_files_stay_in_their_order_where_the_clock_goes_back(path: Path, clock: Clock) -> None:
    sink = sink_of(path, clock)
    for name in "abcdef":
        sink.write([Encoder().encode(AuditEvent(name), "request", clock.now)], sync=False)
        clock.now -= 5
    assert [ids(file) for file in [*former_files(path), path]] == [["a", "b"], ["c", "d"], ["e", "f"]]


def test_processes_that_share_a_file_rotate_it_together(path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(path), name]) for name in ("a", "b", "c")]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    files = log_files([str(path.parent)])
    assert len(files) > 10
    report = verify(files, KEY)
    assert (report.problems, report.records, report.writers) == ((), 1200, 3)


def test_a_log_may_be_judged_while_it_is_rotated(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.replace("20_000", "500_000").replace("400", "20_000"), path, "a"]
    )
    try:
        reports = []
        while child.poll() is None:
            if head_path(path).exists():
                reports.append(judge([str(path.parent)], [KEY]))
    finally:
        child.kill()
        child.wait()
    assert len(reports) > 5
    assert [report.problems for report in reports if not report.ok] == []
    assert judge([str(path.parent)], [KEY]).records == 20_000


def test_a_writer_that_begins_in_a_new_file_links_to_the_former(path: Path, clock: Clock) -> None:
    first = sink_of(path, clock)
    write(first, clock, "a", "b")
    first.close()
    second = sink_of(path, clock, writer="second")
    write(second, clock, "c", "d")
    second.close()
    third = sink_of(path, clock, writer="third")
    write(third, clock, "e")
    third.close()
    files = log_files([str(path.parent)])
    assert [ids(file) for file in files] == [["a", "b"], ["c", "d"], ["e"]]
    assert verify(files, KEY).ok
    for partial in (False, True):
        assert (
            "goes on from a line that is not here"
            in verify([files[0], files[2]], KEY, partial=partial).problems[0].message
        )


def test_a_rotation_that_fails_stops_nothing_and_is_tried_again(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ("a" * 240)  # its rotated name is longer than a name may be
    sink = sink_of(path, clock)
    with caplog.at_level(logging.WARNING):
        write(sink, clock, *"abcd")
        assert len(caplog.records) == 1
        clock.now += ROTATION_RETRY
        write(sink, clock, "e")
    assert ids(path) == list("abcde")
    assert len(caplog.records) == 2


def test_a_file_that_others_cut_is_told_and_found(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """What ``copytruncate`` of logrotate does."""
    sink = sink_of(path, clock, Rotation())
    write(sink, clock, "a", "b")
    copy = path.with_name("audit.jsonl.1")
    copy.write_bytes(path.read_bytes())
    write(sink, clock, "lost")
    path.write_bytes(b"")
    with caplog.at_level(logging.ERROR):
        write(sink, clock, "c")
    sink.close()
    assert "cut from outside" in caplog.text
    assert "records 3 to 3 of w are missing" in verify([copy, path], KEY).problems[0].message


def test_the_time_of_a_file_is_that_of_its_first_record(path: Path, clock: Clock) -> None:
    sink = sink_of(path, clock, Rotation())
    write(sink, clock, "a", "b")
    assert began_at(path.read_bytes()) == 1_764_028_801.0
    assert [began_at(text) for text in (b"", b"{}\n", b'{"time":"2025-99-99T00:00:00Z"}')] == [None, None, None]


# Which files are meant


def test_files_may_be_named_in_any_order_by_patterns_or_by_their_folder(path: Path, clock: Clock) -> None:
    sink = sink_of(path, clock)
    write(sink, clock, *"abcdef")
    sink.close()
    oldest, middle = former_files(path)
    with gzip.open(f"{oldest}.gz", "wb") as packed:
        packed.write(oldest.read_bytes())
    oldest.unlink()
    expected = [Path(f"{oldest}.gz"), middle, path]
    for arguments in (
        [str(path.parent)],
        [f"{path}*"],
        [str(path), str(middle), str(expected[0])],
        list(map(str, path.parent.iterdir())),
    ):
        assert log_files(arguments) == expected
    assert verify(expected, KEY).ok
    path.rename(path.with_name("audit.jsonl.9"))
    assert verify(log_files([str(path.parent)]), KEY).ok


def test_the_numbers_of_writers_say_more_about_the_order_than_times_do(path: Path, clock: Clock) -> None:
    """A record has the time at which it was made; then its writer may have waited for others that share the log."""
    one, two = (sink_of(path, clock, writer=name) for name in ("one", "two"))
    write(two, clock, "a")
    made_early = Encoder().encode(AuditEvent("waited"), "request", clock.now)
    write(one, clock, "b", "c", "d")
    two.write([made_early], sync=False)
    write(one, clock, "e", "f")
    for sink in (one, two):
        sink.close()
    files = log_files([str(path.parent)])
    assert [ids(file) for file in files] == [["a", "b"], ["c", "d"], ["waited", "e"], ["f"]]
    assert verify(files, KEY).ok


def test_what_is_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no log with a head"):
        log_files([str(tmp_path)])
    for name in ("a.jsonl.head", "b.jsonl.head"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"2 logs \(a\.jsonl, b\.jsonl\)"):
        log_files([str(tmp_path)])
    with pytest.raises(ValueError, match="no file has such a name"):
        log_files([str(tmp_path / "c*")])
    with pytest.raises(FileNotFoundError):
        log_files([str(tmp_path / "c")])
