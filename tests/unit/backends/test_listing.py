import asyncio

import pytest

from gateway.backends.link import unusable
from gateway.backends.listing import MAX_ENTRY_BYTES, MAX_PAGES, all_of, not_offered, offer_of
from gateway.errors import BackendTimeout, BackendUnavailable
from gateway.models import JsonObject


class Pages:
    def __init__(self, *pages: JsonObject) -> None:
        self.pages = pages
        self.asked: list[JsonObject] = []

    async def __call__(self, method: str, params: JsonObject, seconds: float) -> JsonObject:
        assert method == "tools/list"
        self.asked.append(params)
        return self.pages[len(self.asked) - 1]


def tool(name: str, **more: object) -> JsonObject:
    return {"name": name, "inputSchema": {}, **more}


async def test_all_pages_are_read_in_order_and_nothing_in_them_is_lost() -> None:
    pages = Pages(
        {"tools": [tool("a", future=None)], "nextCursor": "x"}, {"tools": [], "nextCursor": ""}, {"tools": [tool("b")]}
    )

    assert await all_of("r", pages, "tools/list", "tools", 1.0) == (tool("a", future=None), tool("b"))
    assert pages.asked == [{}, {"cursor": "x"}, {"cursor": ""}]


async def test_a_cursor_that_comes_again_ends_it() -> None:
    with pytest.raises(BackendUnavailable):
        await all_of("r", Pages(*[{"tools": [], "nextCursor": "same"}] * 3), "tools/list", "tools", 1.0)


async def test_pages_without_end_are_never_taken_for_the_whole() -> None:
    pages = Pages(*({"tools": [tool(str(n))], "nextCursor": str(n)} for n in range(MAX_PAGES + 1)))

    with pytest.raises(BackendUnavailable):
        await all_of("r", pages, "tools/list", "tools", 1.0)
    assert len(pages.asked) == MAX_PAGES


@pytest.mark.parametrize("page", [{}, {"tools": None}, {"tools": {}}, {"tools": [], "nextCursor": 1}])
async def test_what_is_no_page_is_an_error_and_not_an_empty_list(page: JsonObject) -> None:
    with pytest.raises(BackendUnavailable):
        await all_of("r", Pages(page), "tools/list", "tools", 1.0)


async def test_a_tool_that_is_malformed_or_too_large_is_left_out_alone() -> None:
    page = {"tools": [tool("a"), "b", tool("c", description="x" * MAX_ENTRY_BYTES)]}

    assert await all_of("r", Pages(page), "tools/list", "tools", 1.0) == (tool("a"),)


async def test_a_tool_that_is_nested_without_end_is_left_out_alone() -> None:
    deep: JsonObject = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert await all_of("r", Pages({"tools": [tool("a"), tool("b", x=deep)]}), "tools/list", "tools", 1.0) == (
        tool("a"),
    )


async def test_all_pages_together_have_one_deadline() -> None:
    async def never(method: str, params: JsonObject, seconds: float) -> JsonObject:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(BackendTimeout):
        await all_of("r", never, "tools/list", "tools", 0.01)


class Backend:
    """Answers each method with one page, or fails."""

    def __init__(self, **pages: JsonObject | BackendUnavailable) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def __call__(self, method: str, params: JsonObject, seconds: float) -> JsonObject:
        self.asked.append(method)
        page = self.pages[method.removesuffix("/list").rpartition("/")[2]]
        if isinstance(page, BackendUnavailable):
            raise page
        return page


EVERYTHING: JsonObject = {"tools": {}, "prompts": {}, "resources": {}, "logging": {}}


async def test_an_offer_has_every_list_that_the_backend_says_it_has() -> None:
    backend = Backend(
        tools={"tools": [tool("a")]},
        prompts={"prompts": [{"name": "p"}]},
        resources={"resources": [{"uri": "x://1"}]},
        templates={"resourceTemplates": [{"uriTemplate": "x://{n}"}]},
    )

    offer = await offer_of("r", EVERYTHING, {"name": "n"}, backend, 1.0)

    assert offer.tools == (tool("a"),)
    assert offer.prompts == ({"name": "p"},)
    assert offer.resources == ({"uri": "x://1"},)
    assert offer.templates == ({"uriTemplate": "x://{n}"},)
    assert (offer.capabilities, offer.server_info) == (EVERYTHING, {"name": "n"})


async def test_a_list_that_was_not_advertised_is_not_asked_for() -> None:
    backend = Backend(tools={"tools": []})

    await offer_of("r", {"tools": {}}, None, backend, 1.0)

    assert backend.asked == ["tools/list"]


async def test_a_list_that_the_backend_does_not_know_is_empty() -> None:
    backend = Backend(resources={"resources": [{"uri": "x://1"}]}, templates=not_offered("r"))

    offer = await offer_of("r", {"resources": {}}, None, backend, 1.0)

    assert (len(offer.resources), offer.templates) == (1, ())


async def test_tools_that_were_advertised_and_cannot_be_listed_are_no_empty_list() -> None:
    with pytest.raises(BackendUnavailable):
        await offer_of("r", {"tools": {}}, None, Backend(tools=not_offered("r")), 1.0)


async def test_a_failure_of_one_list_is_a_failure_of_the_offer() -> None:
    with pytest.raises(BackendUnavailable):
        await offer_of("r", {"prompts": {}}, None, Backend(prompts=unusable("r")), 1.0)
