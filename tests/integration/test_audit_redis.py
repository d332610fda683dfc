"""The audit in a stream of a real Redis-compatible server: exactly once, linked, verified, exported."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gateway.audit import HEADS_KEPT, START, AuditEvent, Encoder, Report, line_hash
from gateway.errors import AuditUnavailable
from gateway.settings import Settings
from gateway.stores import audit_lane, audit_redis
from gateway.stores.audit_files import FileSink
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_reader import export, verify, verify_stream
from gateway.stores.audit_redis import RedisSink, StreamLog, heads_key
from gateway.stores.audit_sinks import open_sinks
from gateway.stores.audit_tail import StreamTail

from .valkey import Valkey, until

KEY = b"k" * 32
KEYS = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


def bodies(*names: str) -> list[bytes]:
    return [Encoder().encode(AuditEvent(name), "request", 0.0) for name in names]


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    return f"audit-{request.node.name}"


def lines_of(url: str, stream: str) -> list[bytes]:
    return [line.rstrip(b"\n") for line in StreamLog(url, stream).lines()]


def judged(url: str, stream: str, **options: bool) -> Report:
    return verify_stream(url, stream, [KEY], **options)


def test_records_of_several_writers_are_linked_and_verify(valkey_url: str, stream: str) -> None:
    first, second = (RedisSink(valkey_url, stream, name, KEY) for name in ("first", "second"))
    first.write([], sync=False)
    second.write([], sync=False)
    first.write(bodies("a", "b"), sync=False)
    second.write(bodies("c"), sync=False)
    first.write(bodies("d"), sync=False)
    for sink in (first, second):
        sink.close()
    lines = lines_of(valkey_url, stream)
    records = [json.loads(line) for line in lines]
    assert [record["request_id"] for record in records] == ["a", "b", "c", "d"]
    assert records[0]["prev"] == START
    assert records[2]["prev"] == line_hash(lines[1])
    assert records[3]["prev"] == line_hash(lines[1])
    report = judged(valkey_url, stream)
    assert (report.ok, report.records, report.writers, report.signed, report.unsealed) == (True, 4, 2, True, 0)


def test_a_batch_of_any_size_is_whole(valkey_url: str, stream: str) -> None:
    sink = RedisSink(valkey_url, stream, "w", KEY)
    sink.write(bodies(*map(str, range(1201))), sync=False)
    assert len(lines_of(valkey_url, stream)) == 1201
    assert judged(valkey_url, stream).ok


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 12])
def test_a_batch_whose_answer_got_lost_is_appended_once(
    valkey_url: str, stream: str, monkeypatch: pytest.MonkeyPatch, lost: int, count: int
) -> None:
    """The script ran and the sink never learns it: once for its first batch, and for one in the middle."""
    monkeypatch.setattr(audit_redis, "BATCH", 5)
    sink = RedisSink(valkey_url, stream, "w", KEY)
    told = sink._script
    asked = 0

    def forgetful(keys: list[str], arguments: list[object]) -> object:
        nonlocal asked
        asked += 1
        answer = told(keys, arguments)
        if asked == lost:
            raise redis.exceptions.TimeoutError
        return answer

    monkeypatch.setattr(sink, "_script", forgetful)
    names = [f"r{at}" for at in range(count)]
    other = RedisSink(valkey_url, stream, "other", KEY)
    for known in (names, ["later"]):
        try:
            sink.write(bodies(*known), sync=False)
        except OSError:
            other.write(bodies("of another"), sync=False)
            sink.write(bodies(*known), sync=False)
    records = [json.loads(line) for line in lines_of(valkey_url, stream)]
    mine = [record["request_id"] for record in records if record["writer"] == "w"]
    assert mine == [*names, "later"]
    assert judged(valkey_url, stream).problems == ()


def test_many_writers_that_begin_at_once_all_link_to_the_line_before(valkey_url: str, stream: str) -> None:
    sinks = [RedisSink(valkey_url, stream, f"w{at}", KEY) for at in range(8)]
    threads = [threading.Thread(target=sink.write, args=(bodies("a", "b"),), kwargs={"sync": False}) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = judged(valkey_url, stream)
    assert (report.problems, report.records, report.writers) == ((), 16, 8)


def test_a_trimmed_stream_verifies_as_the_part_that_it_is(valkey_url: str, stream: str) -> None:
    environ = {"GATEWAY_AUDIT": f"redis:{stream}", "GATEWAY_REDIS_URL": valkey_url, "GATEWAY_KEYS": KEYS}
    (sink,) = open_sinks(Settings.load(environ | {"GATEWAY_AUDIT_STREAM_LENGTH": "1000"}), KEY)
    for at in range(30):
        sink.write(bodies(*(f"{at}-{n}" for n in range(100))), sync=False)
    lines = lines_of(valkey_url, stream)
    kept, trimmed = len(lines), json.loads(lines[-1])
    assert 1000 <= kept < 1500
    assert "gap" in judged(valkey_url, stream).problems[0].message
    assert judged(valkey_url, stream, partial=True).ok
    redis.Redis.from_url(valkey_url).delete(stream)
    RedisSink(valkey_url, stream, "next", KEY).write(bodies("a"), sync=False)
    (line,) = lines_of(valkey_url, stream)
    heads = StreamLog(valkey_url, stream).heads
    assert heads is not None
    assert json.loads(line)["prev"] == heads[trimmed["writer"]].hash


def test_heads_are_those_of_the_writers_that_wrote_last(valkey_url: str, stream: str) -> None:
    for at in range(HEADS_KEPT + 5):
        sink = RedisSink(valkey_url, stream, f"w{at}", KEY)
        sink.write(bodies("a"), sync=False)
        sink.close()
    RedisSink(valkey_url, stream, "last", KEY).write([], sync=False)
    heads = StreamLog(valkey_url, stream).heads
    assert heads is not None
    assert len(heads) <= HEADS_KEPT + 1
    assert "w0" not in heads
    assert judged(valkey_url, stream).ok


def test_a_touched_stream_is_found_out(valkey_url: str, stream: str) -> None:
    sink = RedisSink(valkey_url, stream, "w", KEY)
    sink.write(bodies("a", "b", "c"), sync=False)
    sink.close()
    client = redis.Redis.from_url(valkey_url)
    (entry,) = client.xrevrange(stream, count=1)
    client.xdel(stream, entry[0])
    assert "truncated" in judged(valkey_url, stream).problems[0].message
    client.xadd(stream, {"line": entry[1][b"line"]})
    assert judged(valkey_url, stream).ok
    client.xadd(stream, {"other": "x"})
    assert "unparsable" in judged(valkey_url, stream).problems[0].message
    client.delete(heads_key(stream))
    assert "unknown head" in judged(valkey_url, stream).problems[-1].message


@pytest.fixture(scope="module")
def exported_stream(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tmp_path_factory.mktemp("audit-exported").name  # the module's fixtures may be made again


@pytest.fixture(scope="module")
def exported(valkey_url: str, exported_stream: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    sinks = [RedisSink(valkey_url, exported_stream, name, KEY) for name in ("one", "two")]
    for at in range(6):
        sinks[at % 2].write(bodies(f"{at}a", f"{at}b"), sync=False)
    for sink in sinks:
        sink.close()
    path = tmp_path_factory.mktemp("exported") / "audit.jsonl"
    assert export(valkey_url, exported_stream, path) == 12
    return path, path.read_bytes()


def test_an_export_verifies_like_its_stream(exported: tuple[Path, bytes]) -> None:
    report = verify(exported[0], KEY)
    assert (report.problems, report.records, report.writers, report.signed) == ((), 12, 2, True)


def test_an_export_never_replaces_a_file(valkey_url: str, exported_stream: str, exported: tuple[Path, bytes]) -> None:
    with pytest.raises(FileExistsError):
        export(valkey_url, exported_stream, exported[0])


# The command


def tail(url: str, stream: str, *options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "tail", f"redis:{stream}", *options],
        env={"PATH": os.environ["PATH"], "GATEWAY_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_last_events_of_a_stream_are_shown(valkey_url: str, stream: str) -> None:
    sink = RedisSink(valkey_url, stream, "w", KEY)
    sink.write(bodies(*map(str, range(30))), sync=False)
    assert [line.split()[-1] for line in tail(valkey_url, stream, "-n", "3")] == ["27", "28", "29"]
    assert tail(valkey_url, stream, "-n", "3", "--outcome", "ok") == tail(valkey_url, stream, "-n", "0") == []
    lines = [line.decode() for line in lines_of(valkey_url, stream)]
    assert tail(valkey_url, stream, "-n", "99", "--json", "--outcome", "aborted") == lines


def test_what_comes_into_a_stream_is_read_once(valkey_url: str, stream: str) -> None:
    sink, empty = RedisSink(valkey_url, stream, "w", KEY), StreamTail(valkey_url, stream)
    sink.write(bodies("a", "b"), sync=False)
    log = StreamTail(valkey_url, stream, last=1)
    assert (len(list(log.read())), len(list(log.read()))) == (1, 0)
    sink.write(bodies(*map(str, range(2500))), sync=False)
    assert [json.loads(line)["request_id"] for line in log.read()] == list(map(str, range(2500)))
    assert (len(list(empty.read())), len(list(empty.read())), len(list(empty.read()))) == (0, 2502, 0)
    for each in (log, empty):
        each.close()


# When it fails


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


async def test_without_redis_calls_are_refused_and_it_heals_without_a_loss(
    valkey: Valkey, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_lane, "RETRY", 0.05)
    writer = AuditWriter([RedisSink(valkey.url, stream, "w", KEY)], key=KEY)
    writer.start()
    await writer.intend(AuditEvent("before"))
    valkey.kill()
    with pytest.raises(AuditUnavailable):
        await writer.intend(AuditEvent("refused"))
    assert not writer.healthy
    writer.append(AuditEvent("kept"))
    valkey.start()
    await until(lambda: writer.healthy)
    await writer.intend(AuditEvent("after"))
    await writer.aclose()
    names = [json.loads(line)["request_id"] for line in lines_of(valkey.url, stream)]
    assert names[-3:] == ["refused", "kept", "after"]  # what a killed server had promised is its own affair


async def test_a_second_sink_in_a_frozen_redis_refuses_nothing(
    valkey: Valkey, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_lane, "STALL", 0.05)
    counts: dict[tuple[str, str], int] = {}

    def count(sink: str, result: str, more: int) -> None:
        counts[sink, result] = counts.get((sink, result), 0) + more

    sinks = [RedisSink(valkey.url, stream, "w", KEY)]
    writer = AuditWriter([FileSink(tmp_path / "audit.jsonl", "f", KEY), *sinks], key=KEY, on_result=count)
    writer.start()
    await writer.intend(AuditEvent("before"))
    valkey.freeze()
    for at in range(20):
        await writer.intend(AuditEvent(f"r{at}"))
    assert writer.healthy
    valkey.thaw()
    await until(lambda: counts.get(("redis", "written")) == 21)
    await writer.aclose()
    assert judged(valkey.url, stream).ok


def test_fsync_waits_for_the_append_only_file_or_says_that_there_is_none(tmp_path: Path, stream: str) -> None:
    without, with_one = Valkey(tmp_path / "a"), Valkey(tmp_path / "b", appendonly="yes")
    for server in (without, with_one):
        server.start()
    try:
        with pytest.raises(OSError, match=r"Redis: .*appendonly"):
            RedisSink(without.url, stream, "w", KEY).write(bodies("a"), sync=True)
        RedisSink(with_one.url, stream, "w", KEY).write(bodies("a"), sync=True)
        assert judged(with_one.url, stream).ok
    finally:
        for server in (without, with_one):
            server.kill()


def test_a_redis_that_is_not_there_is_an_error_without_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{taken.getsockname()[1]}/0"
        with pytest.raises(OSError, match="Redis: ConnectionError") as caught:
            RedisSink(url, "audit", "w", KEY).write(bodies("a"), sync=False)
    assert "127.0.0.1" not in str(caught.value)
