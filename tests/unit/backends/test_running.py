import asyncio

import pytest
from mcp.shared.exceptions import MCPError

from gateway.backends.running import Running, unheard
from gateway.models import BackendRequest, Principal

ALICE = Principal(issuer="i", subject="alice")


def running(timeout: float, max_timeout: float = 60.0) -> Running:
    return Running(BackendRequest("tools/call", {}, ALICE, timeout=timeout, max_timeout=max_timeout), unheard)


async def work(call: Running) -> None:
    async with asyncio.timeout(call.first) as call.scope:
        await asyncio.Event().wait()


async def test_no_deadline_runs_while_a_question_is_open() -> None:
    call = running(timeout=60.0)
    task = asyncio.create_task(work(call))
    question = asyncio.create_task(call.ask("roots/list", {}))
    await call.news.wait()

    assert call.scope is not None
    assert call.scope.when() is None
    call.progressed({"progress": 1})
    assert call.scope.when() is None

    call.reply(next(iter(call.open)), {"roots": []})
    assert await question == {"roots": []}
    now = asyncio.get_running_loop().time()
    assert call.scope.when() == pytest.approx(now + 60.0, abs=5)
    task.cancel()


async def test_deadlines_run_again_only_when_the_last_question_is_answered() -> None:
    call = running(timeout=60.0)
    task = asyncio.create_task(work(call))
    questions = [asyncio.create_task(call.ask("roots/list", {})) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = call.open
    assert call.scope is not None

    call.reply(first, {"n": 1})
    assert call.scope.when() is None
    call.reply(second, {"n": 2})
    assert call.scope.when() is not None

    assert await asyncio.gather(*questions) == [{"n": 1}, {"n": 2}]
    task.cancel()


async def test_the_hard_end_moves_by_the_time_of_thinking_alone() -> None:
    call = running(timeout=60.0, max_timeout=0.0)
    question = asyncio.create_task(call.ask("roots/list", {}))
    await call.news.wait()
    call.refuse("no")
    with pytest.raises(MCPError):
        await question

    with pytest.raises(TimeoutError):
        await work(call)


async def test_who_is_refused_is_told_why() -> None:
    call = running(timeout=60.0)
    question = asyncio.create_task(call.ask("roots/list", {}))
    await call.news.wait()

    call.refuse("The call has ended")

    with pytest.raises(MCPError, match="The call has ended") as refused:
        await question
    assert refused.value.code == -32603
    assert call.open == {}


async def test_a_question_that_is_withdrawn_is_open_no_more() -> None:
    call = running(timeout=60.0)
    question = asyncio.create_task(call.ask("roots/list", {}))
    await call.news.wait()

    question.cancel()
    await asyncio.wait({question})

    assert call.open == {}
