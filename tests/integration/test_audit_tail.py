"""``audit tail``: the events as they come, over rotations, safe for a terminal, with exit codes that mean something."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.audit import AuditEvent, Encoder
from gateway.models import Principal
from gateway.stores.audit_files import FileSink
from gateway.stores.audit_rotation import Rotation
from gateway.stores.audit_tail import FileTail

KEY = b"k" * 32
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8", "COLUMNS": "60"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def sink(path: Path) -> Iterator[FileSink]:
    sink = FileSink(path, "w", KEY)
    yield sink
    sink.close()


def write(sink: FileSink, *events: AuditEvent | str) -> None:
    for each in events:
        event = each if isinstance(each, AuditEvent) else AuditEvent(each)
        sink.write([Encoder().encode(event, "request", time.time())], sync=False)


def ids(log: FileTail) -> list[str]:
    return [json.loads(line)["request_id"] for line in log.read()]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_comes_is_read_once(path: Path, sink: FileSink) -> None:
    write(sink, "a", "b")
    log = FileTail(path)
    assert ids(log) == ["a", "b"]
    assert ids(log) == []
    write(sink, "c")
    assert ids(log) == ["c"]
    log.close()


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(path: Path, sink: FileSink) -> None:
    write(sink, "a")
    log = FileTail(path)
    assert ids(log) == ["a"]
    write(sink, "b")
    path.rename(path.with_name("audit.jsonl.1"))
    assert ids(log) == ["b"]
    write(sink, "c")
    assert ids(log) == ["c"]
    log.close()


def test_a_line_that_is_written_between_the_last_look_and_the_rename_is_read(
    path: Path, sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sink, "a")
    log = FileTail(path)
    looked = log._renamed

    def renamed_meanwhile() -> bool:
        monkeypatch.undo()
        write(sink, "late")
        path.rename(path.with_name("audit.jsonl.1"))
        write(sink, "new")
        return looked()

    monkeypatch.setattr(log, "_renamed", renamed_meanwhile)
    assert ids(log) == ["a", "late", "new"]
    log.close()


def test_no_file_is_missed_when_the_log_was_rotated_more_than_once(path: Path) -> None:
    sink = FileSink(path, "w", KEY, rotation=Rotation(max_bytes=900))
    write(sink, "first")
    log = FileTail(path)
    assert ids(log) == ["first"]
    write(sink, *map(str, range(12)))
    sink.close()
    assert ids(log) == list(map(str, range(12)))
    log.close()


def test_a_line_is_given_out_when_it_is_complete(path: Path) -> None:
    path.write_bytes(b"one\ntw")
    log = FileTail(path)
    assert list(log.read()) == [b"one"]
    assert log.torn
    with path.open("ab") as file:
        file.write(b"o\n")
    assert list(log.read()) == [b"two"]
    assert not log.torn
    log.close()


def test_a_file_that_was_cut_is_read_from_its_beginning(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    log = FileTail(path)
    assert list(log.read()) == [b"one", b"two"]
    path.write_bytes(b"new\n")
    assert list(log.read()) == [b"new"]
    log.close()


def test_it_may_begin_before_the_end_at_the_beginning_of_a_line(path: Path) -> None:
    path.write_bytes(b"one\ntwo\nthree\n")
    log = FileTail(path, from_end=8)
    assert list(log.read()) == [b"three"]
    log.close()


# The command


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "tail", *arguments],
        env=ENVIRON | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def following(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The command with ``--follow``, and the file it writes to."""
    told = Path(arguments[0]).with_name("told")
    with told.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "audit", "tail", *arguments, "--follow"],
            env=ENVIRON,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, told  # type: ignore[misc]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_last_events_are_shown_a_line_each_or_as_they_are(path: Path, sink: FileSink) -> None:
    alice, bob = Principal("https://idp", "alice", "agent"), Principal("https://idp", "bob")
    for at in range(30):
        event = AuditEvent(f"r{at}", tool=f"deploy__{at % 3}", principal=alice if at % 2 else bob)
        event.outcome = "ok" if at % 5 else "rate_limited"
        write(sink, event)
    shown = run(str(path)).stdout.splitlines()
    assert [line.split()[-1] for line in shown] == [f"r{at}" for at in range(10, 30)]
    asked = run(str(path), "-n", "2", "--principal", "alice", "--tool", "deploy__*", "--outcome", "rate_limited")
    assert [line.split()[-1] for line in asked.stdout.splitlines()] == ["r15", "r25"]
    raw = run("-n", "3", "--json", GATEWAY_AUDIT=f"stdout,file:{path}")
    assert raw.stdout.encode().splitlines() == path.read_bytes().splitlines()[-3:]
    assert (raw.returncode, raw.stderr) == (0, "")


def test_it_follows_over_rotations_and_ends_in_peace_when_interrupted(path: Path, sink: FileSink) -> None:
    write(sink, "before")
    with following(str(path), "--outcome", "aborted") as (process, told):
        until(lambda: "before" in told.read_text())
        write(sink, "a")
        until(lambda: "a\n" in told.read_text())
        path.rename(path.with_name("audit.jsonl.1"))
        write(sink, "b")
        until(lambda: "b\n" in told.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert [line.split()[-1] for line in told.read_text().splitlines()] == ["before", "a", "b"]


def test_what_could_steer_a_terminal_is_escaped(path: Path, sink: FileSink) -> None:
    write(sink, AuditEvent("r", tool="\x1b[2J\u2028\u202eevil\nr forged", outcome="ok"))
    with path.open("ab") as file:
        file.write(b"\x1b]0;title\x07 \xff not a record\n")
    done = run(str(path))
    assert done.stdout.count("\n") == 1
    assert r"\x1b[2J\u2028\u202eevil\nr forged" in done.stdout
    assert done.stderr == r"not a record: \x1b]0;title\x07 \\xff not a record" + "\n"
    assert all(character.isprintable() for character in done.stdout[:-1])


def test_the_exit_code_says_whether_every_line_was_a_record(path: Path, sink: FileSink, tmp_path: Path) -> None:
    write(sink, "a")
    assert run(str(path)).returncode == 0
    with path.open("ab") as file:
        file.write(b'{"v":1}\n')
    assert run(str(path)).returncode == 1
    with path.open("ab") as file:
        file.write(b'{"v":1')
    assert "no end" in run(str(path)).stderr
    missing = run(str(tmp_path / "none"))
    assert (missing.returncode, "No such file" in missing.stderr) == (2, True)
    assert run(GATEWAY_AUDIT="stdout").returncode == 2


def test_an_outcome_that_does_not_exist_is_refused_instead_of_waited_for(path: Path, sink: FileSink) -> None:
    write(sink, "a")
    done = run(str(path), "--follow", "--outcome", "ok", "--outcome", "insufficent_scope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no outcome insufficent_scope; outcomes are aborted, " in done.stderr
    assert "insufficient_scope, " in done.stderr


def test_a_reader_that_leaves_is_no_failure(path: Path, sink: FileSink) -> None:
    write(sink, *map(str, range(400)))
    command = f"{sys.executable} -m gateway audit tail {path} -n 400 | head -n 1"
    done = subprocess.run(command, shell=True, env=ENVIRON, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
