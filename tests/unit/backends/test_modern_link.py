"""How the lists of a modern backend are asked for."""

import asyncio
from typing import Any, cast

import pytest

from gateway.backends import link
from gateway.backends.listen import Listener
from gateway.backends.modern import ModernHttp, NotModern
from gateway.backends.modern_link import ModernLink

ALL: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}


class Http:
    """Answers every list with its own name once all that are expected were asked for."""

    def __init__(self, capabilities: Any, *, together: int = 0) -> None:
        self.about: Any = {"capabilities": capabilities, "serverInfo": {"name": "s"}}
        self.asked: list[tuple[str, bool]] = []
        self.seconds: list[float] = []
        self.broken = ""
        self.cancelled = 0
        self.all_asked = asyncio.Barrier(together) if together else None

    async def discover(self, timeout: float) -> Any:  # noqa: ASYNC109
        if self.about is None:
            raise NotModern
        return self.about

    async def list_all(self, method: str, key: str, timeout: float, *, optional: bool) -> Any:  # noqa: ASYNC109
        self.asked.append((method, optional))
        self.seconds.append(timeout)
        try:
            if self.all_asked is not None:
                await self.all_asked.wait()
            if method == self.broken:
                raise link.unusable("r")
            if self.broken:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [{key: method}]


class Silent:
    """A listener that is told of the capabilities."""

    def __init__(self) -> None:
        self.advertised_with: list[Any] = []

    async def advertised(self, capabilities: Any, seconds: float) -> None:
        self.advertised_with.append(capabilities)


def linked(http: Http) -> tuple[ModernLink, Silent]:
    listener = Silent()
    return ModernLink("r", cast("ModernHttp", http), cast("Listener", listener)), listener


async def test_all_lists_are_asked_for_at_once_within_the_deadline() -> None:
    http = Http(ALL, together=4)
    one, listener = linked(http)
    async with asyncio.timeout(5):
        offer = await one.offer(3.0)
    assert offer.tools == ({"tools": "tools/list"},)
    assert offer.prompts == ({"prompts": "prompts/list"},)
    assert offer.resources == ({"resources": "resources/list"},)
    assert offer.templates == ({"resourceTemplates": "resources/templates/list"},)
    assert offer.capabilities == ALL
    assert offer.server_info == {"name": "s"}
    assert max(http.seconds) <= 3.0
    assert listener.advertised_with == [ALL]


async def test_only_what_is_advertised_is_asked_for_and_only_tools_must_be_there() -> None:
    http = Http({"tools": {}, "resources": {}, "prompts": None})
    one, _ = linked(http)
    offer = await one.offer(3.0)
    assert offer.prompts == ()
    assert sorted(http.asked) == [
        ("resources/list", True),
        ("resources/templates/list", True),
        ("tools/list", False),
    ]


@pytest.mark.parametrize("capabilities", [None, [], "tools"])
async def test_capabilities_that_are_none_offer_nothing(capabilities: Any) -> None:
    one, _ = linked(Http(capabilities))
    assert await one.offer(3.0) == link.Offer(server_info={"name": "s"})


async def test_a_list_that_fails_ends_the_others_and_no_part_is_taken_for_the_whole() -> None:
    http = Http(ALL, together=4)
    http.broken = "prompts/list"
    one, _ = linked(http)
    with pytest.raises(link.BackendUnavailable):
        await one.offer(3.0)
    assert http.cancelled == 3


async def test_what_was_found_while_connecting_is_not_asked_for_again() -> None:
    http = Http({"tools": {}})
    one, _ = linked(http)
    await one.discover(1.0)
    http.about = None
    assert len((await one.offer(3.0)).tools) == 1
    with pytest.raises(link.WrongEra):
        await one.offer(3.0)
