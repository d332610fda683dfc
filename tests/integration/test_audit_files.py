import asyncio
import json
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from gateway.audit import START, AuditEvent, Encoder, line_hash, parse_heads
from gateway.errors import AuditUnavailable
from gateway.stores import audit_lane
from gateway.stores.audit_files import FileSink, head_path
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_reader import verify
from gateway.stores.audit_sinks import StreamSink, writer_id

KEY = b"k" * 32
CHILD = """
import asyncio, sys
from pathlib import Path
from gateway.audit import AuditEvent
from gateway.stores.audit_files import FileSink
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_sinks import writer_id

async def main(path, count):
    writer = AuditWriter([FileSink(Path(path), writer_id(), b"k" * 32)], key=b"k" * 32)
    writer.start()
    for at in range(count):
        event = AuditEvent(f"{sys.argv[3]}-{at}", arguments={"n": at})
        await writer.intend(event)
        print(event.request_id, flush=True)
        event.outcome = "ok"
        writer.append(event)
    await writer.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def child(path, count, name):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(count), name], stdout=subprocess.PIPE, text=True
    )


def bodies(*names):
    return [Encoder().encode(AuditEvent(name), "request", 0.0) for name in names]


def records_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - files change without telling
            await asyncio.sleep(0.005)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit" / "audit.jsonl"


@pytest.mark.parametrize("durability", ["write", "fsync"])
async def test_calls_and_refusals_are_in_a_private_file_that_verifies(path, durability):
    writer = AuditWriter([FileSink(path, writer_id(), KEY)], durability=durability, key=KEY)
    writer.start()
    for at in range(20):
        event = AuditEvent(f"r{at}", arguments={"n": at})
        await writer.intend(event)
        assert any(record["request_id"] == event.request_id for record in records_of(path))
        writer.append(event)
        writer.append(AuditEvent(f"refused{at}", outcome="rate_limited"))
    await writer.aclose()
    report = verify(path, KEY)
    assert (report.ok, report.records, report.signed, report.unsealed) == (True, 60, True, 0)
    assert report.open_intents == ()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, head_path(path))] == [0o600, 0o600]


def test_kill_9_loses_no_intent_that_was_confirmed(path):
    process = child(path, 100_000, "killed")
    try:
        confirmed = [process.stdout.readline().strip() for _ in range(300)]
    finally:
        process.kill()
    confirmed += process.stdout.read().split("\n")[:-1]
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    intents = {record["request_id"] for record in records_of(path) if record["event"] == "intent"}
    assert set(confirmed) <= intents
    report = verify(path, KEY)
    assert report.ok, report.problems
    assert {intent.request_id for intent in report.open_intents} <= intents


def test_two_processes_on_one_file_verify(path):
    processes = [child(path, 300, name) for name in ("a", "b")]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    report = verify(path, KEY)
    assert (report.ok, report.records, report.writers, report.unsealed) == (True, 1200, 2, 0), report.problems


def test_a_new_process_links_to_the_end_of_the_file(path):
    for name in ("first", "second"):
        sink = FileSink(path, name, KEY)
        sink.write(bodies("a", "b"), sync=False)
        sink.close()
    lines = path.read_bytes().splitlines()
    records = records_of(path)
    assert records[0]["prev"] == START
    assert records[2]["prev"] == line_hash(lines[1])
    assert verify(path, KEY).ok
    path.write_bytes(b"\n".join(lines[2:]) + b"\n")
    assert not verify(path, KEY).ok


def test_a_writer_that_opened_the_file_early_links_to_the_line_before_its_first(path):
    early, busy = FileSink(path, "early", KEY), FileSink(path, "busy", KEY)
    early.write([], sync=False)
    busy.write(bodies("a", "b"), sync=False)
    early.write(bodies("c"), sync=False)
    for sink in (early, busy):
        sink.close()
    assert verify(path, KEY).ok


def test_a_renamed_file_is_followed_by_a_new_one_and_the_chain_goes_on(path):
    sink = FileSink(path, "w", KEY)
    sink.write(bodies("a"), sync=False)
    former = path.rename(path.with_name("audit.jsonl.1"))
    sink.write(bodies("b"), sync=False)
    sink.close()
    successor = FileSink(path, "x", KEY)
    path.rename(path.with_name("audit.jsonl.2"))
    successor.write(bodies("c"), sync=False)
    successor.close()
    files = [former, path.with_name("audit.jsonl.2"), path]
    assert verify(files, KEY).ok
    assert verify(files[1:], KEY, partial=True).ok
    assert not verify(path, KEY).ok
    assert not verify([files[0], files[2]], KEY).ok


def test_a_torn_line_of_a_killed_writer_is_taken_away(path):
    sink = FileSink(path, "killed", KEY)
    sink.write(bodies("a"), sync=False)
    with path.open("ab") as file:
        file.write(b'{"v":1,"writer":"killed","seq":2,' + b"x" * 200_000)
    sink = FileSink(path, "next", KEY)
    sink.write(bodies("b"), sync=False)
    sink.close()
    assert [record["request_id"] for record in records_of(path)] == ["a", "b"]
    assert verify(path, KEY).ok


def test_a_full_disk_leaves_no_torn_line_and_what_failed_is_written_later(path):
    sink = FileSink(path, "w", KEY)
    sink.write(bodies("a"), sync=False)
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            sink.write(bodies("b", "c"), sync=False)
        assert path.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write(bodies("b", "c"), sync=False)
    sink.close()
    assert [record["seq"] for record in records_of(path)] == [1, 2, 3]
    assert verify(path, KEY).ok


async def test_a_full_device_denies_and_heals_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_lane, "RETRY", 0.05)
    path = tmp_path / "audit.jsonl"
    path.symlink_to("/dev/full")
    writer = AuditWriter([FileSink(path, "w", KEY)], key=KEY)
    writer.start()
    with pytest.raises(AuditUnavailable):
        await writer.intend(AuditEvent("refused"))
    assert not writer.healthy
    writer.append(AuditEvent("kept"))
    path.unlink()
    await until(lambda: writer.healthy)
    await writer.intend(AuditEvent("after"))
    await writer.aclose()
    assert [record["request_id"] for record in records_of(path)] == ["refused", "kept", "after"]


def test_the_head_lags_at_most_its_interval_and_settles(path):
    now = [100.0]
    sink = FileSink(path, "w", KEY, clock=lambda: now[0])

    def head():
        return parse_heads(head_path(path).read_bytes())["w"].seq

    sink.write(bodies("a"), sync=False)
    assert head() == 0
    now[0] += 0.2
    sink.write(bodies("b"), sync=False)
    assert head() == 2
    sink.write(bodies("c"), sync=False)
    assert (head(), verify(path, KEY).unsealed) == (2, 1)
    sink.settle()
    assert (head(), verify(path, KEY).ok) == (3, True)
    sink.close()


async def test_an_idle_writer_brings_the_head_up_to_date(path):
    writer = AuditWriter([FileSink(path, "w", KEY)], key=KEY)
    writer.start()
    await writer.intend(AuditEvent("r"))
    await until(lambda: verify(path, KEY).unsealed == 0)
    await writer.aclose()


def test_a_removed_or_broken_head_is_found(path):
    sink = FileSink(path, "w", KEY)
    sink.write(bodies("a"), sync=False)
    sink.close()
    head_path(path).write_text("{}")
    assert not verify(path, KEY).ok
    head_path(path).write_text("broken")
    assert not verify(path, KEY).ok
    head_path(path).unlink()
    assert not verify(path, KEY).ok
    assert verify(path).ok


def test_lines_on_a_pipe_that_broke_go_on_where_they_stopped():
    reader, writer = os.pipe()
    sink = StreamSink("pipe", writer, "w")
    sink.write(bodies("a", "b"), sync=False)
    with os.fdopen(reader, "rb") as file:
        assert [json.loads(file.readline())["seq"] for _ in range(2)] == [1, 2]
    with pytest.raises(BrokenPipeError):
        sink.write(bodies("c"), sync=False)
    again, successor = os.pipe()
    os.dup2(successor, writer)
    os.close(successor)
    sink.write(bodies("c", "d"), sync=False)
    os.close(writer)
    with os.fdopen(again, "rb") as file:
        assert [json.loads(line)["seq"] for line in file] == [3, 4]


def test_a_slow_reader_of_a_non_blocking_pipe_gets_every_line(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with (tmp_path / "out").open("wb") as out:
        reading = subprocess.Popen(["/bin/cat"], stdin=reader, stdout=out)
    os.close(reader)
    sink = StreamSink("pipe", writer, "w")
    sink.write(bodies(*map(str, range(400))), sync=False)
    os.close(writer)
    assert reading.wait(10) == 0
    assert [record["seq"] for record in records_of(tmp_path / "out")] == list(range(1, 401))
