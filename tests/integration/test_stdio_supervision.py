"""Real processes behind stdio backends: how they start, fail, are ended, and what is left behind: nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.backends.backoff import Backoff
from gateway.backends.cause import cause_of
from gateway.backends.dialer import Dialer
from gateway.backends.process import Process
from gateway.backends.session_pool import SessionPool
from gateway.backends.stdio import Stdio
from gateway.errors import BackendTimeout, BackendUnavailable
from gateway.models import Era

from .servers.start import alive, call, children, descriptors, ignore, raw_stdio, text, until


class Events:
    def __init__(self) -> None:
        self.changed = 0
        self.lost = 0

    def on_changed(self) -> None:
        self.changed += 1

    def on_lost(self) -> None:
        self.lost += 1


@asynccontextmanager
async def backend(
    *options: str,
    era: Era | None = "legacy",
    env: dict[str, str] | None = None,
    max_response: int = 1 << 20,
    events: Events | None = None,
    command: tuple[str, ...] | None = None,
) -> AsyncIterator[SessionPool]:
    events = events or Events()
    transport = Stdio("raw", command or raw_stdio(*options), env=env or {}, cwd=None, max_response=max_response)
    dialer = Dialer("raw", transport, era=era, version="1", clock=time.monotonic, backoff=Backoff(0.05, 30.0))
    pool = SessionPool(
        "raw", dialer, mode="shared", clock=time.monotonic, on_list_changed=events.on_changed, on_lost=events.on_lost
    )
    try:
        yield pool
    finally:
        await pool.aclose()


async def pid_of(pool: SessionPool) -> int:
    return int(text(await pool.request(call("pid"), ignore)))


async def again(pool: SessionPool, name: str = "pid") -> str:
    """Ask until the backend answers; refusals meanwhile must be quick and safe to repeat."""
    async with asyncio.timeout(10):
        while True:
            try:
                return text(await pool.request(call(name), ignore))
            except BackendUnavailable as refusal:
                if refusal.dispatched:
                    raise
                await asyncio.sleep(0.01)


async def test_nothing_is_left_when_it_is_closed() -> None:
    before = children()
    async with backend() as pool:
        pid = await pid_of(pool)
        grandchild = int(text(await pool.request(call("fork"), ignore)))
        assert alive(pid)
        assert alive(grandchild)

    assert not alive(pid)
    await until(lambda: not alive(grandchild))
    await until(lambda: children() <= before)


async def test_a_child_that_ignores_the_end_of_its_input_and_sigterm_is_killed_within_seconds() -> None:
    stubborn = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush()\n"
        "time.sleep(600)"
    )
    process = await Process.start("r", (sys.executable, "-I", "-c", stubborn), env={}, cwd=None, max_line=1000)
    assert await process.lines.readline() == b"ready\n"
    started = time.monotonic()

    await process.stop(seconds=0.5)

    assert not alive(process.pid)
    assert time.monotonic() - started < 5


async def test_calls_in_flight_fail_at_once_when_it_dies_and_it_is_back_for_the_next() -> None:
    events = Events()
    async with backend(events=events) as pool:
        first = await pid_of(pool)
        hanging = [asyncio.create_task(pool.request(call("hang", timeout=60.0), ignore)) for _ in range(3)]
        await pid_of(pool)
        started = time.monotonic()

        os.kill(first, signal.SIGKILL)

        for task in hanging:
            with pytest.raises(BackendUnavailable) as failure:
                await task
            assert failure.value.dispatched
            assert not failure.value.retryable
            assert cause_of(failure.value) == "its process has ended (signal 9)"
        assert time.monotonic() - started < 5
        assert int(await again(pool)) != first
        assert events.lost == 1


async def test_a_call_that_crashes_it_is_not_repeated(tmp_path: Path) -> None:
    count = tmp_path / "starts"
    async with backend("--count", str(count)) as pool:
        with pytest.raises(BackendUnavailable) as failure:
            await pool.request(call("crash"), ignore)

        assert failure.value.dispatched
        await again(pool)
        assert len(count.read_text().splitlines()) == 2


async def test_one_that_cannot_start_is_not_started_over_and_over(tmp_path: Path) -> None:
    count = tmp_path / "starts"
    async with backend("--count", str(count), "--fail-start") as pool:
        refusals = 0
        async with asyncio.timeout(10):
            while refusals < 200 or not count.exists():
                with pytest.raises(BackendUnavailable) as failure:
                    await pool.request(call("pid"), ignore)
                assert not failure.value.dispatched
                refusals += 1
                await asyncio.sleep(0.001)

    assert len(count.read_text().splitlines()) < 8


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (("/nowhere/at/all",), "not found: all"),
        ((sys.executable, "-c", "import sys; sys.exit(3)"), "its process has ended (exit status 3)"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"), "its process has ended (signal 15)"),
    ],
)
async def test_what_is_no_server_is_unavailable_and_only_the_operator_is_told_why(
    command: tuple[str, ...], cause: str
) -> None:
    async with backend(command=command) as pool:
        with pytest.raises(BackendUnavailable) as failure:
            await pool.request(call("pid"), ignore)

    assert not failure.value.dispatched
    assert command[0] not in failure.value.message
    assert cause_of(failure.value) == cause


@pytest.mark.parametrize("on_discover", ["error", "silence", "die"])
async def test_an_old_server_is_found_whatever_it_does_when_asked_for_the_new_era(
    on_discover: str, tmp_path: Path
) -> None:
    count = tmp_path / "starts"
    async with backend("--on-discover", on_discover, "--count", str(count), era=None) as pool:
        offer = await pool.offer(3.0)

        assert pool.era == "legacy"
        assert len(offer.tools) == 3
    assert len(count.read_text().splitlines()) == (2 if on_discover == "die" else 1)


async def test_a_server_of_the_new_era_is_spoken_to_in_it() -> None:
    command = (str(Path(sys.executable).with_name("mcp-server-time")),)
    async with backend(command=command, era=None) as pool:
        offer = await pool.offer(5.0)
        reply = await pool.request(call("get_current_time", {"timezone": "Europe/Berlin"}), ignore)

        assert pool.era == "modern"
        assert {tool["name"] for tool in offer.tools} == {"get_current_time", "convert_time"}
        assert json.loads(text(reply))["timezone"] == "Europe/Berlin"


async def test_noise_on_its_output_is_skipped() -> None:
    async with backend("--noise") as pool:
        assert text(await pool.request(call("garbage"), ignore)) == "still here"
        assert await pid_of(pool)


async def test_a_line_without_end_costs_the_session_and_not_the_gateway() -> None:
    async with backend() as pool:
        first = await pid_of(pool)
        with pytest.raises(BackendUnavailable) as failure:
            await pool.request(call("endless"), ignore)

        assert failure.value.dispatched
        assert int(await again(pool)) != first


async def test_an_answer_up_to_the_limit_passes() -> None:
    async with backend() as pool:
        assert len(text(await pool.request(call("large", {"size": 900_000}), ignore))) == 900_000


async def test_complaints_never_block_it() -> None:
    async with backend() as pool:
        for _ in range(3):
            assert text(await pool.request(call("complain"), ignore)) == "complained"


async def test_it_sees_its_own_environment_and_none_of_the_secrets_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEYS", "secret-canary")
    monkeypatch.setenv("DEPLOY_TOKEN", "secret-canary")
    async with backend(env={"OWN": "x"}) as pool:
        seen = json.loads(text(await pool.request(call("environment"), ignore)))

    assert seen["OWN"] == "x"
    assert seen["PATH"].endswith(os.environ["PATH"])
    assert "secret-canary" not in str(seen)


async def test_a_call_that_is_late_is_cancelled_at_the_backend() -> None:
    async with backend() as pool:
        await pid_of(pool)
        with pytest.raises(BackendTimeout):
            await pool.request(call("hang", timeout=0.1), ignore)

        assert len(json.loads(text(await pool.request(call("cancelled"), ignore)))) == 1


async def test_progress_restarts_the_idle_time_but_not_the_hard_end() -> None:
    heard: list[object] = []
    slow = {"steps": 6, "pause": 0.1}
    async with backend() as pool:
        waiting = call("slow_with_progress", slow, wants_progress=True, timeout=0.4)
        assert text(await pool.request(waiting, lambda _, params: heard.append(params))) == "done"
        assert heard == [{"progress": step, "vendor": None} for step in range(6)]

        with pytest.raises(BackendTimeout):
            await pool.request(
                call("slow_with_progress", slow, wants_progress=True, timeout=0.4, max_timeout=0.3), ignore
            )


async def test_two_hundred_cancelled_calls_leave_nothing_behind() -> None:
    async with backend() as pool:
        await pid_of(pool)
        tasks, open_before = len(asyncio.all_tasks()), descriptors()
        calls = [asyncio.create_task(pool.request(call("echo", {"n": n}), ignore)) for n in range(200)]
        await asyncio.sleep(0)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert descriptors() <= open_before
        assert await pid_of(pool)


@pytest.mark.parametrize(("method", "answer"), [("ping", '"result": {}'), ("sampling/createMessage", '"code": -32601')])
async def test_requests_of_the_backend_are_answered(method: str, answer: str) -> None:
    async with backend() as pool:
        assert answer in text(await pool.request(call("ask_client", {"method": method}), ignore))


async def test_what_no_model_knows_passes_unchanged() -> None:
    async with backend() as pool:
        reply = await pool.request(call("vendor"), ignore)
        echoed = await pool.request(call("echo", {"big": 2**80, "none": None, "odd": "\u2028\U0001f600"}), ignore)
        unknown = await pool.request(call("nothing"), ignore)

    assert reply.result == {
        "content": [{"type": "text", "text": "x"}],
        "structuredContent": None,
        "vendor": {"future": [1, None]},
        "_meta": {"null": None},
    }
    assert json.loads(text(echoed)) == {"big": 2**80, "none": None, "odd": "\u2028\U0001f600"}
    assert unknown.error == {"code": -32602, "message": "Unknown tool", "data": {"a": None}}


async def test_a_message_goes_to_the_only_call_there_is() -> None:
    heard: list[object] = []
    async with backend() as pool:
        wanted = call("log", {"x": None}, log_level="info")
        await pool.request(wanted, lambda method, params: heard.append((method, params)))

    assert heard == [("notifications/message", {"level": "info", "data": {"x": None}})]


async def test_a_change_of_its_tools_is_told() -> None:
    events = Events()
    async with backend(events=events) as pool:
        await pool.offer(3.0)
        await pool.request(call("change"), ignore)

        await until(lambda: events.changed == 1)
        assert len((await pool.offer(3.0)).tools) == 4


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_no_process_survives_a_gateway_that_is_killed(loop: str) -> None:
    gateway = textwrap.dedent(f"""
        import asyncio, sys, uvloop
        from gateway.backends.process import Process
        child = ("import subprocess, sys, time\\n"
                 "grandchild = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\\n"
                 "print(grandchild.pid, flush=True)\\n"
                 "time.sleep(600)")
        async def main():
            process = await Process.start("r", (sys.executable, "-I", "-c", child), env={{}}, cwd=None, max_line=1000)
            print(process.pid, int(await process.lines.readline()), flush=True)
            await asyncio.Event().wait()
        {"asyncio.run" if loop == "asyncio" else "uvloop.run"}(main())
    """)
    process = subprocess.Popen([sys.executable, "-c", gateway], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert process.stdout is not None
    with process.stdout:
        child, grandchild = map(int, process.stdout.readline().split())
        assert alive(child)
        assert alive(grandchild)

        process.kill()
        process.wait()

        await until(lambda: not alive(child) and not alive(grandchild))
