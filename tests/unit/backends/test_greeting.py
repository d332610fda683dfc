import asyncio
from collections.abc import Callable

import pytest
from mcp.shared.exceptions import MCPError

from gateway.backends.greeting import Greeting, Hello
from gateway.backends.link import HandshakeRefused, WrongEra
from gateway.backends.verdict import Answer
from gateway.backends.wire import Exchange
from gateway.errors import BackendUnavailable
from gateway.models import Era, JsonObject

MODERN: JsonObject = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
LEGACY: JsonObject = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x"}}


class Backend:
    """Answers by method; a method that is missing is never answered."""

    def __init__(self, **answers: JsonObject | MCPError | tuple[int, MCPError]) -> None:
        self.answers = answers
        self.said: list[str] = []

    async def ask(self, method: str, params: JsonObject, seconds: float) -> Answer:
        self.said.append(method)
        exchange, answer = Exchange(), self.answers.get(method.rsplit("/", maxsplit=1)[-1])
        if isinstance(answer, tuple):
            exchange.status, answer = answer
        if isinstance(answer, MCPError):
            return Answer(None, answer, exchange)
        return Answer(answer, None, exchange)

    async def notify(self, method: str, revision: str) -> None:
        self.said.append(f"{method} {revision}")


async def greet(era: Era | None, backend: Backend) -> Greeting:
    return await Hello("r", era, "1").say(backend.ask, backend.notify)


async def test_a_modern_backend_is_asked_once() -> None:
    backend = Backend(discover=MODERN)

    greeting = await greet(None, backend)

    assert (greeting.era, greeting.revision, greeting.capabilities) == ("modern", "2026-07-28", {"tools": {}})
    assert backend.said == ["server/discover"]


@pytest.mark.parametrize(
    "discover", [{}, {"discover": MCPError(-32601, "no")}, {"discover": {"supportedVersions": ["2025-11-25"]}}]
)
async def test_silence_and_what_is_no_evidence_go_on_with_initialize(discover: dict[str, JsonObject]) -> None:
    backend = Backend(initialize=LEGACY, **discover)

    greeting = await greet(None, backend)

    assert (greeting.era, greeting.revision, greeting.server_info) == ("legacy", "2025-06-18", {"name": "x"})
    assert backend.said == ["server/discover", "initialize", "notifications/initialized 2025-06-18"]


class SlowBackend(Backend):
    """Answers ``server/discover`` when it was told ``initialize`` too, and that after it or never."""

    def __init__(self, *, answers_initialize: bool = True, **answers: JsonObject | MCPError) -> None:
        super().__init__(**answers)
        self._answers_initialize = answers_initialize
        self._started = asyncio.Event()
        self.given_up: list[str] = []

    async def ask(self, method: str, params: JsonObject, seconds: float) -> Answer:
        answer = await super().ask(method, params, seconds)
        silent = answer.result is None and answer.error is None
        try:
            if method == "initialize":
                self._started.set()
                silent = not self._answers_initialize
            await (asyncio.Event() if silent else self._started).wait()
        except asyncio.CancelledError:
            self.given_up.append(method)
            raise
        return answer


async def greet_slow(backend: SlowBackend) -> Greeting:
    async with asyncio.timeout(5):
        return await Hello("r", None, "1", silence=0.0).say(backend.ask, backend.notify)


@pytest.mark.parametrize("answers_initialize", [True, False])
async def test_a_modern_backend_that_is_slow_to_start_is_modern(answers_initialize: bool) -> None:
    backend = SlowBackend(discover=MODERN, initialize=MCPError(-32600, "no"), answers_initialize=answers_initialize)

    assert (await greet_slow(backend)).era == "modern"
    assert backend.said == ["server/discover", "initialize"]


@pytest.mark.parametrize("discover", [{}, {"discover": MCPError(-32601, "no")}])
async def test_a_legacy_backend_that_is_slow_or_silent_is_legacy(discover: dict[str, MCPError]) -> None:
    backend = SlowBackend(initialize=LEGACY, **discover)

    assert (await greet_slow(backend)).era == "legacy"
    assert backend.said == ["server/discover", "initialize", "notifications/initialized 2025-06-18"]


async def test_a_question_that_nobody_waits_for_any_more_is_given_up() -> None:
    backend = SlowBackend(initialize=LEGACY)

    await greet_slow(backend)

    assert backend.given_up == ["server/discover"]


async def test_a_slow_backend_that_ends_because_it_was_asked_is_told_apart() -> None:
    with pytest.raises(WrongEra):
        await greet_slow(SlowBackend(discover=MCPError(-32000, "Connection closed"), answers_initialize=False))


async def test_a_known_legacy_backend_is_not_asked_what_it_is() -> None:
    backend = Backend(initialize=LEGACY)

    await greet("legacy", backend)

    assert backend.said[0] == "initialize"


def contradictions() -> list[Callable[[], tuple[Era | None, Backend]]]:
    return [
        lambda: (None, Backend(discover=MCPError(-32000, "Connection closed"))),
        lambda: ("modern", Backend(discover=MCPError(-32601, "no"))),
        lambda: ("modern", Backend()),
        lambda: ("legacy", Backend(initialize=MCPError(-32022, "no", {"supported": ["2026-07-28"]}))),
        lambda: ("legacy", Backend(initialize=MCPError(-32601, "no"))),
    ]


@pytest.mark.parametrize("case", contradictions())
async def test_a_contradiction_to_what_was_known_is_told_apart(
    case: Callable[[], tuple[Era | None, Backend]],
) -> None:
    with pytest.raises(WrongEra):
        await greet(*case())


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_http_refusal_of_initialize_names_its_status(status: int) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        await greet("legacy", Backend(initialize=(status, MCPError(-32601, "Not Found"))))

    assert refused.value.status == status


@pytest.mark.parametrize("answer", [{}, {"protocolVersion": "1.0"}, {"protocolVersion": None}])
async def test_an_answer_without_a_known_revision_is_no_session(answer: JsonObject) -> None:
    with pytest.raises(BackendUnavailable):
        await greet("legacy", Backend(initialize=answer))
