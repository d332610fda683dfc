import asyncio

import pytest

from gateway.backends.listing import MAX_PAGES, MAX_TOOL_BYTES, tools_of
from gateway.errors import BackendTimeout, BackendUnavailable
from gateway.models import JsonObject

OFFERS_TOOLS: JsonObject = {"tools": {}}


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

    assert await tools_of("r", OFFERS_TOOLS, pages, 1.0) == (tool("a", future=None), tool("b"))
    assert pages.asked == [{}, {"cursor": "x"}, {"cursor": ""}]


async def test_a_backend_without_tools_is_not_asked() -> None:
    pages = Pages()

    assert await tools_of("r", {"prompts": {}}, pages, 1.0) == ()
    assert pages.asked == []


async def test_a_cursor_that_comes_again_ends_it() -> None:
    with pytest.raises(BackendUnavailable):
        await tools_of("r", OFFERS_TOOLS, Pages(*[{"tools": [], "nextCursor": "same"}] * 3), 1.0)


async def test_pages_without_end_are_never_taken_for_the_whole() -> None:
    pages = Pages(*({"tools": [tool(str(n))], "nextCursor": str(n)} for n in range(MAX_PAGES + 1)))

    with pytest.raises(BackendUnavailable):
        await tools_of("r", OFFERS_TOOLS, pages, 1.0)
    assert len(pages.asked) == MAX_PAGES


@pytest.mark.parametrize("page", [{}, {"tools": None}, {"tools": {}}, {"tools": [], "nextCursor": 1}])
async def test_what_is_no_page_is_an_error_and_not_an_empty_list(page: JsonObject) -> None:
    with pytest.raises(BackendUnavailable):
        await tools_of("r", OFFERS_TOOLS, Pages(page), 1.0)


async def test_a_tool_that_is_malformed_or_too_large_is_left_out_alone() -> None:
    page = {"tools": [tool("a"), "b", tool("c", description="x" * MAX_TOOL_BYTES)]}

    assert await tools_of("r", OFFERS_TOOLS, Pages(page), 1.0) == (tool("a"),)


async def test_all_pages_together_have_one_deadline() -> None:
    async def never(method: str, params: JsonObject, seconds: float) -> JsonObject:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(BackendTimeout):
        await tools_of("r", OFFERS_TOOLS, never, 0.01)
