"""Sessions with real SDK servers of the legacy era over streamable HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from msgspec.structs import replace as with_members

from gateway.backends.cause import cause_of
from gateway.backends.dialer import Dialer
from gateway.backends.legacy_http import LegacyHttp
from gateway.backends.legacy_sse import LegacySse
from gateway.backends.link import ConnectionLost
from gateway.backends.session import Hooks
from gateway.backends.session_pool import Bounds, Mode, SessionPool
from gateway.egress.addresses import Reach
from gateway.errors import BackendBusy, BackendTimeout, BackendUnavailable
from gateway.models import Principal

from .servers.start import ALICE, BOB, HttpServer, call, descriptors, http_server, ignore, text, until

STREAMABLE = [(), ("--json",)]


@pytest.fixture(params=[*STREAMABLE, ("--sse",)], ids=["events", "json", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    with http_server("--legacy-only", *request.param) as running:
        yield running


@pytest.fixture
def one_server() -> Iterator[HttpServer]:
    with http_server("--legacy-only") as running:
        yield running


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@asynccontextmanager
async def pool_of(
    url: str, *, mode: Mode = "principal", limit: int = 256, clock: Clock | None = None
) -> AsyncIterator[SessionPool]:
    clock = clock or Clock()
    key = (("X-Api-Key", "k"),)
    over_sse = url.endswith("/sse")
    transport = (
        LegacySse("sdk", url, headers=key, max_response=1 << 20)
        if over_sse
        else LegacyHttp(url, headers=key, max_response=1 << 20)
    )
    dialer = Dialer("sdk", transport, era="legacy", version="1", clock=clock)
    pool = SessionPool(
        "sdk",
        dialer,
        mode=mode,
        clock=clock,
        on_list_changed=lambda: None,
        on_lost=lambda: None,
        bounds=Bounds(sessions=limit),
    )
    try:
        yield pool
    finally:
        await pool.aclose()


async def stats(pool: SessionPool, principal: Principal = ALICE) -> dict[str, object]:
    found: dict[str, object] = json.loads(text(await pool.request(call("stats", principal=principal), ignore)))
    return found


async def until_running(pool: SessionPool, count: int, principal: Principal = ALICE) -> None:
    async with asyncio.timeout(20):
        while (await stats(pool, principal))["running"] != count:
            pass


async def test_a_call_is_answered_and_the_credentials_are_shown(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        assert text(await pool.request(call("echo", {"text": "\u00e9\u2028"}), ignore)) == "\u00e9\u2028"

        headers = (await stats(pool))["headers"]
        assert isinstance(headers, dict)
        assert headers["x-api-key"] == "k"
        assert headers["mcp-protocol-version"] == "2025-11-25"
        assert not [name for name in headers if name.startswith("x-mcp-gateway")]


async def test_the_offer_has_everything_the_server_said_of_itself(one_server: HttpServer) -> None:
    async with pool_of(one_server.url) as pool:
        offer = await pool.offer(3.0)

    assert {tool["name"] for tool in offer.tools} >= {"echo", "hang", "steps"}
    assert offer.server_info is not None
    assert offer.server_info["name"] == "sdk"
    assert "tools" in offer.capabilities


async def test_one_session_carries_all_calls_of_a_principal_and_none_of_another(one_server: HttpServer) -> None:
    async with pool_of(one_server.url) as pool:
        await asyncio.gather(*(pool.request(call("echo", {"text": "x"}), ignore) for _ in range(20)))
        assert (await stats(pool))["sessions"] == 1

        await pool.request(call("echo", {"text": "x"}, principal=BOB), ignore)
        await pool.request(call("echo", {"text": "x"}, principal=replace(ALICE, issuer="other")), ignore)
        assert (await stats(pool))["sessions"] == 3


async def test_a_shared_session_serves_everybody_and_a_clients_only_that_client(one_server: HttpServer) -> None:
    async with pool_of(one_server.url, mode="shared") as pool:
        for principal in (ALICE, BOB):
            await pool.request(call("echo", {"text": "x"}, principal=principal), ignore)
        assert (await stats(pool))["sessions"] == 1
    async with pool_of(one_server.url, mode="client") as pool:
        for client in ("a", "b", "a"):
            await pool.request(call("echo", {"text": "x"}, principal=replace(ALICE, client_id=client)), ignore)
        assert pool.sessions == 2


async def test_sessions_are_bounded_and_the_longest_unused_makes_room(one_server: HttpServer) -> None:
    async with pool_of(one_server.url, limit=2) as pool:
        for subject in "abc":
            principal = replace(ALICE, subject=subject)
            assert text(await pool.request(call("echo", {"text": subject}, principal=principal), ignore)) == subject
        assert pool.sessions == 2

        busy = [replace(ALICE, subject=subject) for subject in "bc"]
        running = [asyncio.create_task(pool.request(call("hang", principal=principal), ignore)) for principal in busy]
        await until_running(pool, 2, busy[0])
        with pytest.raises(BackendBusy) as refusal:
            await pool.request(call("echo", {"text": "x"}, principal=BOB), ignore)
        assert not refusal.value.dispatched
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_session_that_nobody_uses_is_ended(one_server: HttpServer) -> None:
    clock = Clock()
    async with pool_of(one_server.url, clock=clock) as pool:
        await pool.request(call("echo", {"text": "x"}), ignore)
        clock.ahead = 599
        pool.sweep()
        assert pool.sessions == 1

        clock.ahead = 601
        pool.sweep()

        assert pool.sessions == 0
        assert text(await pool.request(call("echo", {"text": "again"}), ignore)) == "again"


@pytest.mark.parametrize("server", STREAMABLE, indirect=True, ids=["events", "json"])
async def test_an_expired_session_is_renewed_once_and_the_call_repeated(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        await pool.request(call("echo", {"text": "x"}), ignore)
        server.restart()

        replies = await asyncio.gather(*(pool.request(call("echo", {"text": str(n)}), ignore) for n in range(5)))

        assert [text(reply) for reply in replies] == ["0", "1", "2", "3", "4"]
        assert (await stats(pool))["sessions"] == 1


async def test_a_server_that_dies_fails_its_calls_at_once_and_is_found_again(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        hanging = asyncio.create_task(pool.request(call("hang"), ignore))
        await until_running(pool, 1)
        started = time.monotonic()

        with pytest.raises(ConnectionLost) as lost:
            await pool.request(call("die"), ignore)
        assert lost.value.dispatched
        with pytest.raises(ConnectionLost):
            await hanging
        assert time.monotonic() - started < 5

        server.process.wait()  # its last connection is closed too
        with pytest.raises(ConnectionLost) as refused:
            await pool.request(call("echo", {"text": "x"}), ignore)
        assert not refused.value.dispatched
        assert "127.0.0.1" not in refused.value.message
        assert cause_of(refused.value) == "connection refused"

        server.restart()
        assert text(await pool.request(call("echo", {"text": "back"}), ignore)) == "back"


@pytest.mark.parametrize("server", STREAMABLE, indirect=True, ids=["events", "json"])
async def test_an_answer_that_is_too_large_costs_that_call_alone(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        with pytest.raises(BackendUnavailable, match="too large") as failure:
            await pool.request(call("large", {"size": 2 << 20}), ignore)
        assert failure.value.dispatched

        assert (await stats(pool))["sessions"] == 1


async def test_progress_reaches_the_caller_and_restarts_the_idle_time(one_server: HttpServer) -> None:
    heard: list[object] = []
    async with pool_of(one_server.url) as pool:
        slow = call("steps", {"count": 5, "pause": 0.2}, wants_progress=True, timeout=0.6)
        assert text(await pool.request(slow, lambda _, params: heard.append(params["progress"]))) == "done"
        assert heard == [0, 1, 2, 3, 4]

        with pytest.raises(BackendTimeout):
            await pool.request(with_members(slow, max_timeout=0.5), ignore)


async def test_two_hundred_cancelled_calls_end_at_the_server_and_leave_nothing_here(server: HttpServer) -> None:
    async with pool_of(server.url, mode="shared") as pool:
        await stats(pool)
        tasks = len(asyncio.all_tasks())
        for _ in range(4):
            calls = [asyncio.create_task(pool.request(call("hang"), ignore)) for _ in range(50)]
            await until_running(pool, 50)
            for task in calls:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*calls, return_exceptions=True)
            await until_running(pool, 0)

        assert (await stats(pool))["cancelled"] == 200
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_closed_pool_leaves_no_connection(one_server: HttpServer) -> None:
    async def use() -> None:
        before = descriptors()
        async with pool_of(one_server.url) as pool:
            await asyncio.gather(*(pool.request(call("echo", {"text": "x"}), ignore) for _ in range(10)))
            assert descriptors() > before

    await use()  # the loop itself keeps what it opens for its first connection
    after_one = descriptors()
    await use()

    await until(lambda: descriptors() <= after_one)


async def test_who_leaves_while_a_session_is_opened_does_not_take_it_from_the_others(one_server: HttpServer) -> None:
    async with pool_of(one_server.url) as pool:
        first = asyncio.create_task(pool.request(call("echo", {"text": "x"}), ignore))
        second = asyncio.create_task(pool.request(call("echo", {"text": "y"}), ignore))
        await asyncio.sleep(0)
        first.cancel()

        assert text(await second) == "y"
        assert (await stats(pool))["sessions"] == 1


async def test_a_server_at_an_address_that_is_not_to_be_reached_is_not_connected_to() -> None:
    connected = asyncio.Event()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    reaches: tuple[Reach, ...] = ("public", "configured")
    for reach in reaches:
        dialer = Dialer("sdk", LegacyHttp(url, reach=reach), era="legacy", version="1", clock=Clock())
        with pytest.raises(BackendUnavailable):
            await dialer.connect(Hooks(lambda _session: None), {})
        await dialer.aclose()
        assert connected.is_set() == (reach == "configured")
    listening.close()
