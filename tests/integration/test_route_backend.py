"""The backend of a route over real servers: era, breaker, bulkhead, listings, and what is repeated."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.route_backend import RouteBackend
from gateway.errors import BackendBusy, BackendUnavailable
from gateway.models import Listing
from gateway.ports import Take, Verdict
from gateway.routes import Backend, Route

from .servers.start import (
    alive,
    asking_stdio,
    call,
    children,
    descriptors,
    http_server,
    ignore,
    raw_stdio,
    text,
    until,
)


class Meter:
    def __init__(self) -> None:
        self.answers = 0

    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None: ...

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None: ...

    def backend(self, route: str, seconds: float) -> None:
        assert seconds > 0
        self.answers += 1


class Started:
    def __init__(self, backend: dict[str, Any] | Backend, settings: dict[str, Any]) -> None:
        self.url = backend.url if isinstance(backend, Backend) else backend.get("url")
        self.listings: list[Listing] = []
        self.meter = Meter()
        self.backend = RouteBackend(
            Route.model_validate({"name": "tools", "backend": backend, "scopes": [], **settings}),
            on_listing=self.listings.append,
            meter=self.meter,
            version="1",
        )


@asynccontextmanager
async def started(backend: dict[str, Any] | Backend, **settings: Any) -> AsyncIterator[Started]:
    one = Started(backend, settings)
    one.backend.start()
    try:
        await one.backend.first_attempt()
        yield one
    finally:
        await one.backend.aclose()
        assert one.backend.inflight == 0


@pytest.mark.parametrize(
    ("options", "era", "found"),
    [
        ((), "auto", "modern"),
        ((), "legacy", "legacy"),
        ((), "modern", "modern"),
        (("--legacy-only",), "auto", "legacy"),
        (("--legacy-only",), "2025-06-18", "legacy"),
        (("--sse",), "auto", "legacy"),
        (("--sse",), "legacy", "legacy"),
    ],
)
async def test_any_http_server_is_spoken_to_in_its_era(options: tuple[str, ...], era: str, found: str) -> None:
    with http_server(*options) as server:
        async with started({"url": server.url, "era": era}) as one:
            assert one.backend.up
            assert one.backend.era == found
            assert "echo" in {tool["name"] for tool in one.listings[0].tools}
            assert one.listings[0].over_http

            reply = await one.backend.request(call("echo", {"text": "hi"}), ignore)

            assert text(reply) == "hi"
            assert one.meter.answers == 1


async def test_a_backend_pinned_to_an_era_it_does_not_speak_is_unavailable() -> None:
    with http_server("--legacy-only") as server:
        async with started({"url": server.url, "era": "modern"}) as one:
            assert not one.backend.up
            with pytest.raises(BackendUnavailable):
                await one.backend.request(call("echo", {"text": "hi"}), ignore)


async def test_a_program_is_started_listed_called_and_ended() -> None:
    before = children()
    async with started({"command": list(raw_stdio())}) as one:
        pid = int(text(await one.backend.request(call("pid"), ignore)))

        assert one.backend.era == "legacy"
        assert not one.listings[0].over_http
        assert [tool["name"] for tool in one.listings[0].tools] == ["tool0", "tool1", "tool2"]
        assert one.backend.sessions == 1

    assert not alive(pid)
    await until(lambda: children() <= before)


async def test_a_program_that_is_killed_is_back_within_seconds_by_itself(tmp_path: Path) -> None:
    count = tmp_path / "starts"
    async with started({"command": list(raw_stdio("--count", str(count)))}) as one:
        pid = int(text(await one.backend.request(call("pid"), ignore)))
        hanging = [asyncio.create_task(one.backend.request(call("hang"), ignore)) for _ in range(3)]
        await one.backend.request(call("pid"), ignore)
        killed = time.monotonic()

        os.kill(pid, signal.SIGKILL)

        for task in hanging:
            with pytest.raises(BackendUnavailable):
                await task
        await until(lambda: len(count.read_text().splitlines()) == 2 and one.backend.up)
        assert time.monotonic() - killed < 5
        assert int(text(await one.backend.request(call("pid"), ignore))) != pid
        assert len(one.listings) == 1


async def test_changed_tools_are_told_at_once() -> None:
    async with started({"command": list(raw_stdio())}) as one:
        await one.backend.request(call("change"), ignore)

        await until(lambda: len(one.listings) == 2)
        assert len(one.listings[1].tools) == 4


async def test_a_backend_that_was_never_there_refuses_fast_and_is_found_when_it_comes(tmp_path: Path) -> None:
    with http_server() as server:
        server.kill()
        async with started({"url": server.url}) as one:
            assert not one.backend.up
            assert one.backend.listing is None
            with pytest.raises(BackendUnavailable) as refusal:
                await one.backend.request(call("echo", {"text": "hi"}), ignore)
            assert not refusal.value.dispatched
            assert refusal.value.message == (
                "The tools backend is not reachable; nothing was executed. Try again later."
            )

            server.start()

            await until(lambda: one.backend.up)
            assert len(one.listings) == 1


@pytest.mark.parametrize("options", [(), ("--legacy-only",)])
async def test_a_dead_backend_keeps_its_listing_and_opens_the_breaker_until_it_is_back(
    options: tuple[str, ...],
) -> None:
    with http_server(*options) as server:
        async with started({"url": server.url}) as one:
            server.kill()
            for _ in range(10):
                with pytest.raises(BackendUnavailable) as refusal:
                    await one.backend.request(call("echo", {"text": "hi"}), ignore)
            assert not refusal.value.dispatched
            assert one.backend.breaker_state == 2
            assert not one.backend.up
            assert one.backend.listing is one.listings[0]

            refused_fast = time.monotonic()
            with pytest.raises(BackendUnavailable) as refusal:
                await one.backend.request(call("echo", {"text": "hi"}), ignore)
            assert time.monotonic() - refused_fast < 0.1
            assert 0 < (refusal.value.retry_after or 0) <= 1

            server.start(*options)
            await eventually(one, "back")
            assert one.backend.breaker_state == 0


async def eventually(one: Started, word: str) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                assert text(await one.backend.request(call("echo", {"text": word}), ignore)) == word
            except BackendUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


async def test_an_http_backend_that_is_replaced_by_one_of_the_other_era_is_found_out() -> None:
    with http_server("--legacy-only") as server:
        async with started({"url": server.url}, refresh="1s") as one:
            assert one.backend.era == "legacy"
            server.restart("--json")
            await eventually(one, "still legacy is fine")
    with http_server() as server:
        async with started({"url": server.url}, refresh="1s") as one:
            assert one.backend.era == "modern"
            server.restart("--legacy-only")
            await eventually(one, "now legacy")
            assert one.backend.era == "legacy"


async def test_answers_that_are_too_large_do_not_open_the_breaker() -> None:
    with http_server() as server:
        async with started({"url": server.url}, max_response="64KiB") as one:
            for _ in range(12):
                with pytest.raises(BackendUnavailable, match="too large"):
                    await one.backend.request(call("large", {"size": 200_000}), ignore)

            assert text(await one.backend.request(call("echo", {"text": "hi"}), ignore)) == "hi"


async def running(one: Started, count: int) -> None:
    async with asyncio.timeout(10):
        while json.loads(text(await one.backend.request(call("stats"), ignore)))["running"] != count:
            pass


async def test_a_full_bulkhead_queues_and_then_refuses_without_sending() -> None:
    with http_server() as server:
        async with started({"url": server.url}, max_concurrency=2) as one:
            hanging = [asyncio.create_task(one.backend.request(call("hang"), ignore)) for _ in range(2)]
            await until(lambda: one.backend.inflight == 2)

            with pytest.raises(BackendBusy) as refusal:
                await one.backend.request(call("echo", {"text": "hi"}, timeout=0.1), ignore)
            assert not refusal.value.dispatched
            assert one.backend.breaker_state == 0

            queued = asyncio.create_task(one.backend.request(call("echo", {"text": "hi"}), ignore))
            await asyncio.sleep(0)
            hanging[0].cancel()
            assert text(await queued) == "hi"
            hanging[1].cancel()
            await asyncio.gather(*hanging, return_exceptions=True)


@pytest.mark.parametrize("options", [(), ("--legacy-only",)])
async def test_cancelled_calls_end_at_the_backend_and_leave_no_place_taken(options: tuple[str, ...]) -> None:
    with http_server(*options) as server:
        async with started({"url": server.url}, max_concurrency=60) as one:
            for _ in range(4):
                calls = [asyncio.create_task(one.backend.request(call("hang"), ignore)) for _ in range(50)]
                await running(one, 50)
                for task in calls:
                    task.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                await running(one, 0)
            assert one.backend.inflight == 0
            assert one.backend.breaker_state == 0


Script = Callable[[dict[str, Any]], dict[str, Any] | None]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A server that answers each JSON-RPC request as told: a result or error member, or None to hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
                request = json.loads(await reader.readexactly(length) or b"{}")
                request["headers"] = head.decode()
                answer = script(request)
                if answer is None:
                    return
                status = b"200 OK" if "result" in answer else b"400 Bad Request"
                body = json.dumps({"jsonrpc": "2.0", "id": request.get("id"), **answer}).encode()
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, len(body), body)
                )
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("idempotent", "times"), [(False, 1), (True, 2)])
async def test_only_an_idempotent_call_is_sent_again_after_the_connection_broke(
    era: str, idempotent: bool, times: int
) -> None:
    calls = 0

    def script(request: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal calls
        if request.get("method") == "tools/call":
            calls += 1
            return None
        return {
            "result": {"server/discover": MODERN, "initialize": LEGACY}.get(request.get("method", ""), {"tools": []})
        }

    async with scripted(script) as url, started({"url": url, "era": era}) as one:
        with pytest.raises(BackendUnavailable) as failure:
            await one.backend.request(call("x", idempotent=idempotent), ignore)

        assert failure.value.dispatched
        assert calls == times


async def test_stale_parameter_headers_are_made_anew_from_a_fresh_listing() -> None:
    changed = False
    seen: list[str] = []

    def script(request: dict[str, Any]) -> dict[str, Any] | None:
        if request["method"] == "server/discover":
            return {"result": MODERN}
        if request["method"] == "tools/list":
            header = {"x-mcp-header": "Region"} if changed else {}
            schema = {"type": "object", "properties": {"region": {"type": "string", **header}}}
            return {"result": {"tools": [{"name": "x", "inputSchema": schema}], "resultType": "complete"}}
        seen.append(request["headers"].lower())
        if "mcp-param-region: eu" not in seen[-1]:
            return {"error": {"code": -32020, "message": "Header mismatch"}}
        return {"result": {"content": [{"type": "text", "text": "ok"}], "resultType": "complete"}}

    async with scripted(script) as url, started({"url": url}) as one:
        changed = True

        reply = await one.backend.request(call("x", {"region": "eu"}), ignore)

        assert text(reply) == "ok"
        assert len(seen) == 2
        assert len(one.listings) == 2


async def test_a_backend_that_says_it_has_left_the_era_is_asked_anew_and_the_call_repeated() -> None:
    modern = True

    def script(request: dict[str, Any]) -> dict[str, Any] | None:
        method = request.get("method", "")
        if modern:
            return {"result": MODERN if method == "server/discover" else {"tools": [], "resultType": "complete"}}
        if "protocol-version: 2026" in request["headers"].lower():
            return {"error": {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"]}}}
        answers = {"initialize": LEGACY, "tools/call": {"content": [{"type": "text", "text": "ok"}]}}
        return {"result": answers.get(method, {"tools": []})}

    async with scripted(script) as url, started({"url": url}) as one:
        assert one.backend.era == "modern"
        modern = False

        assert text(await one.backend.request(call("x"), ignore)) == "ok"
        assert one.backend.era == "legacy"


@pytest.mark.parametrize("kind", ["modern", "legacy", "sse", "stdio"])
async def test_of_a_thousand_cancelled_calls_no_task_stream_session_descriptor_or_child_is_left(kind: str) -> None:
    with ExitStack() as stack:
        if kind == "stdio":
            where: dict[str, Any] = {"command": list(asking_stdio()), "era": "legacy"}
        else:
            option = {"modern": "--modern", "legacy": "--port=0", "sse": "--sse"}[kind]
            where = {"url": stack.enter_context(http_server(option, program="asking.py")).url}
        async with started(where) as one:

            async def stats() -> dict[str, int]:
                found: dict[str, int] = json.loads(text(await one.backend.request(call("stats"), ignore)))
                return found

            async def until_running(count: int) -> None:
                async with asyncio.timeout(30):
                    while (await stats())["running"] != count:
                        pass

            async def give_up(count: int) -> None:
                calls = [asyncio.create_task(one.backend.request(call("hang"), ignore)) for _ in range(count)]
                await until_running(count)
                for task in calls:
                    task.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                await until_running(0)

            await stats()
            open_files = descriptors()
            await give_up(50)  # what the gateway itself keeps open is open now
            tasks, sessions, processes = _tasks(), one.backend.sessions, children()
            for _ in range(19):
                await give_up(50)

            assert (await stats())["cancelled"] == 1000
            await until(lambda: _tasks() <= tasks + 2)  # a modern backend is listened to, a little later
            assert one.backend.sessions == sessions
            assert children() == processes
            async with asyncio.timeout(10):
                while descriptors() > open_files + 2:  # connections that rest are closed when they are looked at
                    await stats()


def _tasks() -> int:
    return len(asyncio.all_tasks())
