"""Legacy backends that ask their client in mid-call: real SDK servers, over HTTP and stdio."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.backends.dialer import Dialer
from gateway.backends.legacy_http import LegacyHttp
from gateway.backends.legacy_sse import LegacySse
from gateway.backends.session_pool import Bounds, Mode, SessionPool
from gateway.backends.stdio import Stdio
from gateway.backends.wire import Transport
from gateway.errors import BackendTimeout, BackendUnavailable, InvalidRequest
from gateway.models import BackendReply, BackendRequest, Change, Era, JsonObject

from .servers.start import BOB, HttpServer, asking_stdio, call, http_server, ignore, text, until

EVERYTHING: JsonObject = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server(program="asking.py") as running:
        yield running


def transport_to(where: str | tuple[str, ...]) -> Transport:
    if not isinstance(where, str):
        return Stdio("asking", where, env={}, cwd=None, max_response=1 << 20)
    return LegacySse("asking", where) if where.endswith("/sse") else LegacyHttp(where)


@asynccontextmanager
async def pool_of(
    where: str | tuple[str, ...],
    *,
    clock: Clock | None = None,
    bounds: Bounds | None = None,
    changes: list[Change] | None = None,
    mode: Mode = "shared",
    era: Era = "legacy",
) -> AsyncIterator[SessionPool]:
    clock = clock or Clock()
    heard: list[Change] = [] if changes is None else changes
    dialer = Dialer("asking", transport_to(where), era=era, version="1", clock=clock)
    pool = SessionPool(
        "asking",
        dialer,
        mode=mode,
        clock=clock,
        on_list_changed=lambda: None,
        on_lost=lambda: None,
        on_change=heard.append,
        bounds=bounds or Bounds(),
    )
    try:
        yield pool
    finally:
        await pool.aclose()


@pytest.fixture
def changes() -> list[Change]:
    """What the pool tells of."""
    return []


@pytest.fixture(params=["http", "sse", "stdio"])
async def pool(request: pytest.FixtureRequest, changes: list[Change]) -> AsyncIterator[SessionPool]:
    if request.param == "stdio":
        async with pool_of(asking_stdio(), changes=changes) as over_stdio:
            yield over_stdio
    else:
        options = ["--sse"] if request.param == "sse" else []
        with http_server(*options, program="asking.py") as running:
            async with pool_of(running.url, changes=changes) as over_http:
                yield over_http


def asking(name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> BackendRequest:
    return call(name, arguments, **{"capabilities": EVERYTHING, **options})


def asked(reply: BackendReply) -> JsonObject:
    assert reply.result is not None, reply.error
    assert reply.result["resultType"] == "input_required"
    requests: JsonObject = reply.result["inputRequests"]
    return requests


def answered(request: BackendRequest, reply: BackendReply, answers: Mapping[str, Any]) -> BackendRequest:
    assert reply.result is not None
    return replace(request, answers=answers, state=reply.result["requestState"])


def accept(name: str) -> JsonObject:
    return {"action": "accept", "content": {"name": name}}


async def stats(pool: SessionPool) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(await pool.request(asking("stats"), ignore)))
    return found


async def until_stats(pool: SessionPool, **wanted: object) -> None:
    async with asyncio.timeout(20):
        while {name: (await stats(pool))[name] for name in wanted} != wanted:
            pass


@pytest.mark.parametrize(
    ("answer", "said"),
    [(accept("Ann"), "accept Ann"), ({"action": "decline"}, "decline"), ({"action": "cancel"}, "cancel")],
)
async def test_a_question_in_mid_call_is_asked_and_the_call_goes_on_with_the_answer(
    pool: SessionPool, answer: JsonObject, said: str
) -> None:
    request = asking("ask", {"question": "who?"})

    reply = await pool.request(request, ignore)

    ((key, question),) = asked(reply).items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "form"
    assert question["params"]["message"] == "who?"
    assert question["params"]["requestedSchema"]["properties"]["name"]["type"] == "string"
    assert pool.parked == 1
    assert text(await pool.request(answered(request, reply, {key: answer}), ignore)) == said
    assert pool.parked == 0
    assert (await stats(pool))["ran"] == 1


async def test_two_questions_one_after_the_other_are_two_rounds(pool: SessionPool) -> None:
    request = asking("twice")

    first = await pool.request(request, ignore)
    second = await pool.request(answered(request, first, {k: accept("A") for k in asked(first)}), ignore)
    last = await pool.request(answered(request, second, {k: accept("B") for k in asked(second)}), ignore)

    assert not asked(first).keys() & asked(second).keys()
    assert first.result is not None
    assert second.result is not None
    assert first.result["requestState"] != second.result["requestState"]
    assert text(last) == "accept A, accept B"
    assert (await stats(pool))["ran"] == 1


async def test_two_questions_at_once_are_one_round_and_what_is_missing_is_asked_again(pool: SessionPool) -> None:
    request = asking("together")

    reply = await pool.request(request, ignore)
    questions = asked(reply)
    assert sorted(q["params"]["message"] for q in questions.values()) == ["one", "two"]
    one, two = sorted(questions, key=lambda key: str(questions[key]["params"]["message"]))

    again = await pool.request(answered(request, reply, {two: accept("T"), "unknown": accept("?")}), ignore)
    assert set(asked(again)) == {one}
    broken = await pool.request(answered(request, again, {one: {"action": "perhaps"}}), ignore)
    assert set(asked(broken)) == {one}

    assert text(await pool.request(answered(request, broken, {one: accept("O")}), ignore)) == "accept O, accept T"


async def test_sampling_and_roots_are_asked_like_elicitation(pool: SessionPool) -> None:
    sampling, listing = asking("sample"), asking("roots")

    reply = await pool.request(sampling, ignore)
    ((key, question),) = asked(reply).items()
    assert question["method"] == "sampling/createMessage"
    assert question["params"]["maxTokens"] == 10
    sampled = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m", "resultType": "complete"}
    assert text(await pool.request(answered(sampling, reply, {key: sampled}), ignore)) == "hi"

    reply = await pool.request(listing, ignore)
    ((key, question),) = asked(reply).items()
    assert question == {"method": "roots/list"}
    found = {"roots": [{"uri": "file:///a"}]}
    assert text(await pool.request(answered(listing, reply, {key: found}), ignore)) == "file:///a"


async def test_url_elicitation_loses_the_id_that_the_new_era_does_not_know(pool: SessionPool) -> None:
    request = asking("visit")

    reply = await pool.request(request, ignore)

    ((key, question),) = asked(reply).items()
    assert question["params"] == {"mode": "url", "message": "open it", "url": "https://example.com/x"}
    assert text(await pool.request(answered(request, reply, {key: {"action": "accept"}}), ignore)) == "accept"


async def test_parallel_calls_over_one_http_session_get_each_its_own_question(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        requests = [asking("ask", {"question": str(n)}) for n in range(8)]
        replies = await asyncio.gather(*(pool.request(request, ignore) for request in requests))
        assert [next(iter(asked(reply).values()))["params"]["message"] for reply in replies] == list("01234567")
        assert pool.sessions == 1

        retries = [
            answered(request, reply, {key: accept(str(n)) for key in asked(reply)})
            for n, (request, reply) in enumerate(zip(requests, replies, strict=True))
        ]
        results = await asyncio.gather(*(pool.request(retry, ignore) for retry in reversed(retries)))
        assert [text(result) for result in reversed(results)] == [f"accept {n}" for n in range(8)]


async def test_a_backend_that_does_not_say_which_call_asks_gets_a_session_for_each(pool: SessionPool) -> None:
    first = asking("roots")
    reply = await pool.request(first, ignore)
    empty: JsonObject = {"roots": []}
    await pool.request(answered(first, reply, dict.fromkeys(asked(reply), empty)), ignore)

    replies = await asyncio.gather(*(pool.request(asking("roots"), ignore) for _ in range(3)))

    assert len({reply.result["requestState"] for reply in replies if reply.result and asked(reply)}) == 3
    for n, reply in enumerate(replies):
        found = {"roots": [{"uri": f"file:///{n}"}]}
        retry = answered(asking("roots"), reply, dict.fromkeys(asked(reply), found))
        assert text(await pool.request(retry, ignore)) == f"file:///{n}"


async def test_nothing_that_was_not_declared_is_announced_or_asked(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        forms = {"elicitation": {}, "experimental": {"x": {}}, "tasks": {}}
        await pool.request(asking("ask", {"question": "?"}, capabilities=forms), ignore)
        assert (await stats(pool))["capabilities"] == {"elicitation": {"form": {}}}

        # Refused to the backend, whose tool then fails in its own words.
        for name, capabilities in (("visit", forms), ("sample", forms), ("roots", {}), ("ask", {"sampling": {}})):
            arguments = {"question": "?"} if name == "ask" else {}
            reply = await pool.request(asking(name, arguments, capabilities=capabilities), ignore)
            assert reply.result is None or reply.result.get("isError")


@pytest.mark.parametrize(
    ("name", "capabilities", "lacking"),
    [
        ("visit", {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ("sample", {"elicitation": {}}, {"sampling": {}}),
        ("roots", {}, {"roots": {}}),
    ],
)
async def test_a_question_that_was_refused_is_remembered_with_its_call(
    pool: SessionPool, name: str, capabilities: JsonObject, lacking: JsonObject
) -> None:
    reply = await pool.request(asking(name, capabilities=capabilities), ignore)

    assert reply.undeclared is not None
    assert reply.undeclared["code"] == -32021
    assert reply.undeclared["data"] == {"requiredCapabilities": lacking}
    assert (await pool.request(asking("missing", capabilities=capabilities), ignore)).undeclared is None


QUESTIONS: list[tuple[str, JsonObject]] = [("ask", {"question": "?"}), ("missing", {}), ("visit", {})]


async def test_where_several_calls_run_a_refused_question_is_that_of_the_call_it_came_with(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        requests = [asking(name, arguments, capabilities={}) for name, arguments in QUESTIONS]

        form, _, url = await asyncio.gather(*(pool.request(request, ignore) for request in requests))

        assert form.undeclared is not None
        assert form.undeclared["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}
        assert url.undeclared is not None
        assert url.undeclared["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


async def test_clients_with_other_capabilities_do_not_share_a_session(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        for capabilities in ({}, {"sampling": {}}, {"sampling": {}, "x": 1}, EVERYTHING):
            await pool.request(asking("stats", capabilities=capabilities), ignore)

        assert pool.sessions == 3


async def test_a_handle_is_used_once(pool: SessionPool) -> None:
    request = asking("ask", {"question": "?"})
    reply = await pool.request(request, ignore)
    retry = answered(request, reply, {key: accept("A") for key in asked(reply)})
    await pool.request(retry, ignore)

    with pytest.raises(InvalidRequest, match="not known any more") as refused:
        await pool.request(retry, ignore)

    assert (refused.value.code, refused.value.status) == (-32602, 200)
    assert (await stats(pool))["ran"] == 1


async def test_a_handle_is_good_for_its_principal_and_its_request_alone(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        request = asking("ask", {"question": "?"})
        reply = await pool.request(request, ignore)
        retry = answered(request, reply, {key: accept("A") for key in asked(reply)})
        others = [
            replace(retry, principal=BOB),
            replace(retry, params={"name": "ask", "arguments": {"question": "!"}}),
            replace(retry, params={"name": "twice", "arguments": {"question": "?"}}),
            replace(retry, method="prompts/get"),
            replace(retry, state="made up"),
        ]
        for other in others:
            with pytest.raises(InvalidRequest):
                await pool.request(other, ignore)

        assert text(await pool.request(retry, ignore)) == "accept A"


async def test_who_does_not_come_back_in_time_loses_the_call_and_the_backend_is_told(server: HttpServer) -> None:
    clock = Clock()
    async with pool_of(server.url, clock=clock) as pool:
        request = asking("ask", {"question": "?"})
        reply = await pool.request(request, ignore)
        clock.ahead = 599
        pool.sweep()
        assert pool.parked == 1

        clock.ahead = 601
        pool.sweep()

        assert pool.parked == 0
        await until_stats(pool, running=0)
        with pytest.raises(InvalidRequest):
            await pool.request(answered(request, reply, {}), ignore)


async def test_an_expired_handle_is_refused_before_any_sweep(server: HttpServer) -> None:
    clock = Clock()
    async with pool_of(server.url, clock=clock) as pool:
        request = asking("ask", {"question": "?"})
        reply = await pool.request(request, ignore)
        clock.ahead = 601

        with pytest.raises(InvalidRequest):
            await pool.request(answered(request, reply, {key: accept("A") for key in asked(reply)}), ignore)
        await until_stats(pool, running=0)


async def test_answers_for_a_session_that_died_are_an_error_and_the_tool_does_not_run_again(
    server: HttpServer,
) -> None:
    async with pool_of(server.url) as pool:
        request = asking("ask", {"question": "?"})
        reply = await pool.request(request, ignore)
        server.restart()

        with pytest.raises(BackendUnavailable) as failure:
            await pool.request(answered(request, reply, {key: accept("A") for key in asked(reply)}), ignore)

        assert failure.value.dispatched
        assert not failure.value.retryable
        assert (await stats(pool))["ran"] == 0


async def test_time_to_think_is_not_time_of_the_backend(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        request = asking("slow_ask", {"before": 0.2, "after": 0.2}, timeout=0.6, max_timeout=0.8)
        reply = await pool.request(request, ignore)
        async with asyncio.timeout(5):
            thinking = time.monotonic() + 1.0
            while time.monotonic() < thinking:
                await stats(pool)

        assert text(await pool.request(answered(request, reply, {k: accept("A") for k in asked(reply)}), ignore))


@pytest.mark.parametrize("limits", [{"timeout": 0.4}, {"timeout": 5.0, "max_timeout": 0.6}])
async def test_after_the_answer_the_deadlines_run_again(server: HttpServer, limits: dict[str, float]) -> None:
    async with pool_of(server.url) as pool:
        request = asking("slow_ask", {"before": 0.1, "after": 60.0}, **limits)
        reply = await pool.request(request, ignore)

        with pytest.raises(BackendTimeout):
            await pool.request(answered(request, reply, {key: accept("A") for key in asked(reply)}), ignore)
        await until_stats(pool, running=0, cancelled=1)


async def test_who_hangs_up_while_the_resumed_call_runs_cancels_it(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        request = asking("slow_ask", {"before": 0.0, "after": 60.0})
        reply = await pool.request(request, ignore)
        retry = answered(request, reply, {key: accept("A") for key in asked(reply)})
        resumed = asyncio.create_task(pool.request(retry, ignore))
        await until(lambda: pool.parked == 0)

        resumed.cancel()
        await asyncio.wait({resumed})

        await until_stats(pool, running=0, cancelled=1)


async def test_a_question_that_the_backend_withdraws_needs_no_answer(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        request = asking("impatient")
        reply = await pool.request(request, ignore)
        await until_stats(pool, running=0)

        late = answered(request, reply, {key: accept("A") for key in asked(reply)})
        assert text(await pool.request(late, ignore)) == "no answer in time"


async def test_more_parked_calls_than_allowed_are_refused_to_the_backend(server: HttpServer) -> None:
    async with pool_of(server.url, bounds=Bounds(parked=2)) as pool:
        request = asking("ask", {"question": "?"})
        first, _ = [await pool.request(request, ignore) for _ in range(2)]

        third = await pool.request(request, ignore)

        assert third.error is not None or (third.result or {}).get("isError")
        assert text(await pool.request(answered(request, first, {k: accept("A") for k in asked(first)}), ignore))
        assert asked(await pool.request(request, ignore))


async def test_two_hundred_abandoned_calls_leave_nothing_behind(server: HttpServer) -> None:
    clock = Clock()
    async with pool_of(server.url, clock=clock) as pool:
        await stats(pool)
        tasks = len(asyncio.all_tasks())
        for _ in range(4):
            replies = [pool.request(asking("ask", {"question": "?"}), ignore) for _ in range(50)]
            assert all(asked(reply) for reply in await asyncio.gather(*replies))
        assert pool.parked == 200

        clock.ahead = 601
        pool.sweep()

        await until_stats(pool, running=0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_closed_pool_ends_what_is_parked(pool: SessionPool) -> None:
    await pool.request(asking("ask", {"question": "?"}), ignore)

    await pool.aclose()

    assert pool.parked == 0
    await until(lambda: len(asyncio.all_tasks()) <= 2)


async def test_a_url_that_must_be_opened_first_is_asked_for_and_then_the_call_is_made_anew(pool: SessionPool) -> None:
    request = asking("protected")

    reply = await pool.request(request, ignore)

    ((key, question),) = asked(reply).items()
    assert question["params"] == {"mode": "url", "message": "m", "url": "https://example.com/a"}
    again = await pool.request(answered(request, reply, {}), ignore)
    assert set(asked(again)) == {key}
    assert text(await pool.request(answered(request, again, {key: {"action": "accept"}}), ignore)) == "inside"
    assert (await stats(pool))["ran"] == 2


async def test_a_url_that_is_declined_is_an_error_and_nothing_runs(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        request = asking("protected")
        reply = await pool.request(request, ignore)

        declined = await pool.request(
            answered(request, reply, {k: {"action": "decline"} for k in asked(reply)}), ignore
        )

        assert declined.error is not None
        assert (await stats(pool))["ran"] == 1


async def test_errors_that_the_new_era_does_not_know_are_said_in_its_words(server: HttpServer) -> None:
    async with pool_of(server.url) as pool:
        not_found = await pool.request(asking("missing"), ignore)
        undeclared = await pool.request(asking("protected", capabilities={"elicitation": {}}), ignore)

    assert not_found.error == {"code": -32602, "message": "Resource not found", "data": {"uri": "x"}}
    assert undeclared.error is not None
    assert undeclared.error["code"] == -32021
    assert undeclared.error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


async def test_log_messages_reach_the_call_that_wants_them_and_the_backend_is_told_the_level(
    server: HttpServer,
) -> None:
    async with pool_of(server.url) as pool:
        heard: dict[str | None, list[object]] = {None: [], "info": [], "debug": []}

        async def chat(level: str | None) -> None:
            await pool.request(
                asking("chat", log_level=level), lambda method, params: heard[level].append(params["data"])
            )

        await asyncio.gather(*(chat(level) for level in heard))
        assert heard == {None: [], "info": ["info", "error"], "debug": ["debug", "info", "error"]}
        assert (await stats(pool))["level"] == "debug"

        await chat("info")
        assert (await stats(pool))["level"] == "info"


async def test_the_offer_has_prompts_resources_and_templates(pool: SessionPool) -> None:
    offer = await pool.offer(5.0)

    assert [prompt["name"] for prompt in offer.prompts] == ["greet"]
    assert [resource["uri"] for resource in offer.resources] == ["memo://one"]
    assert [template["uriTemplate"] for template in offer.templates] == ["memo://{name}/part"]
    assert "ask" in {tool["name"] for tool in offer.tools}


async def test_what_is_watched_is_subscribed_and_its_changes_are_told(pool: SessionPool, changes: list[Change]) -> None:
    await pool.offer(5.0)

    pool.watch(frozenset({"memo://one", "memo://two"}))
    await until_own(pool, ["memo://one", "memo://two"])
    pool.watch(frozenset({"memo://one"}))
    await until_own(pool, ["memo://one"])

    await pool.request(call("announce", {"uri": "memo://one"}), ignore)
    await until(lambda: Change("asking", "resource", "memo://one") in changes)
    await until(lambda: Change("asking", "tools") in changes)


async def test_after_a_restart_it_is_subscribed_again_and_the_lists_count_as_changed(server: HttpServer) -> None:
    changes: list[Change] = []
    async with pool_of(server.url, changes=changes) as pool:
        pool.watch(frozenset({"memo://one"}))
        await until_own(pool, ["memo://one"])
        server.restart()

        # The stream of the session comes again by itself and finds that it is forgotten.
        await until_own(pool, ["memo://one"])

        await until(lambda: {change.kind for change in changes} >= {"tools", "prompts", "resources"})
        changes.clear()
        await pool.request(call("announce", {"uri": "memo://one"}), ignore)
        await until(lambda: Change("asking", "resource", "memo://one") in changes)


async def test_a_modern_backend_over_stdio_asks_and_is_answered_in_its_own_way() -> None:
    async with pool_of(asking_stdio(), era="modern") as pool:
        request = asking("ask_modern")
        reply = await pool.request(request, ignore)
        assert asked(reply)["who"]["params"]["message"] == "who?"

        assert text(await pool.request(answered(request, reply, {"who": accept("Ann")}), ignore)) == "Ann"
        undeclared = await pool.request(replace(request, capabilities={}), ignore)
        assert undeclared.error is not None
        assert undeclared.error["code"] == -32021
        assert pool.parked == 0


async def test_a_modern_backend_over_stdio_is_listened_to_also_after_it_was_restarted() -> None:
    changes: list[Change] = []
    async with pool_of(asking_stdio(), era="modern", changes=changes) as pool:
        for watched in (frozenset({"memo://two"}), frozenset({"memo://one"})):
            pool.watch(watched)
            await until_told(pool, changes, next(iter(watched)))
        changes.clear()
        with pytest.raises(BackendUnavailable):
            await pool.request(call("die"), ignore)

        await until(lambda: {change.kind for change in changes} >= {"tools", "prompts", "resources"})
        await until_told(pool, changes, "memo://one")
        assert Change("asking", "tools") in changes


async def until_told(pool: SessionPool, changes: list[Change], uri: str) -> None:
    async with asyncio.timeout(15):
        while Change("asking", "resource", uri) not in changes:
            try:
                await pool.request(call("tell", {"uri": uri}), ignore)
            except BackendUnavailable:
                continue


async def until_own(pool: SessionPool, subscribed: list[str]) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                found = json.loads(text(await pool.request(call("stats"), ignore)))
            except BackendUnavailable:
                continue
            if sorted(found["subscribed"]) == subscribed:
                return
