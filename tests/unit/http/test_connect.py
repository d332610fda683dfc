import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from gateway.http.connect import MAX_FORM, connect_app


class FlowError(Exception):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Shown:
    route: str = "tools"
    subject: str = "<b>alice</b>"
    issuer: str = "https://idp.example"
    server: str = "login.example"
    form: str = "f&orm"


class Flow:
    def __init__(self, *, secure: bool = True) -> None:
        self.secure = secure
        self.begun: list[tuple[str, str, str]] = []
        self.finished: list[tuple[Mapping[str, str], str]] = []

    async def page(self, link: str, browser: str) -> Any:
        if link == "bad":
            raise FlowError("<i>no</i>", 404)
        return Shown()

    async def begin(self, link: str, browser: str, form: str) -> str:
        self.begun.append((link, browser, form))
        return "https://login.example/authorize?x=1"

    async def finish(self, answer: Mapping[str, str], browser: str) -> str:
        self.finished.append((answer, browser))
        return "tools"


def client(flow: Flow) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(connect_app(flow, FlowError))
    return httpx2.AsyncClient(transport=transport, base_url="https://g.example")


async def test_the_page_says_for_whom_and_asks_before_anything_is_done() -> None:
    flow = Flow()
    async with client(flow) as browser:
        page = await browser.get("/connect/abc")
    assert page.status_code == 200
    for words in ("login.example", "tools", "&lt;b&gt;alice&lt;/b&gt;", "https://idp.example", "f&amp;orm"):
        assert words in page.text
    assert "<b>alice" not in page.text
    assert flow.begun == []


async def test_no_other_page_can_frame_it_script_it_or_learn_of_it() -> None:
    async with client(Flow()) as browser:
        headers = (await browser.get("/connect/abc")).headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "form-action 'self' https://login.example" in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("secure", "name"), [(True, "__Host-mcp-gateway-connect"), (False, "mcp-gateway-connect")])
async def test_the_browser_is_known_by_a_cookie_of_this_host(*, secure: bool, name: str) -> None:
    flow = Flow(secure=secure)
    async with client(flow) as browser:
        first = await browser.get("/connect/abc")
        cookie = first.headers["set-cookie"]
        assert re.match(rf"{name}=[\w-]{{40,}};", cookie)
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie
        assert ("Secure" in cookie) is secure
        answer = await browser.post("/connect/abc", data={"form": "f&orm"})
        await browser.get("/connect/callback?state=s&code=c")
    assert answer.status_code == 303
    assert answer.headers["location"] == "https://login.example/authorize?x=1"
    ((link, began_in, form),) = flow.begun
    ((given, ended_in),) = flow.finished
    assert (link, form, given) == ("abc", "f&orm", {"state": "s", "code": "c"})
    assert began_in == ended_in
    assert len(began_in) >= 40


async def test_a_form_of_another_site_goes_nowhere() -> None:
    flow = Flow()
    async with client(flow) as browser:
        answer = await browser.post("/connect/abc", data={"form": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert flow.begun == []


async def test_a_form_that_is_too_long_is_not_read() -> None:
    flow = Flow()
    async with client(flow) as browser:
        await browser.post("/connect/abc", data={"form": "x" * MAX_FORM})
    assert flow.begun == [("abc", "", "")]


async def test_a_failure_is_told_in_words_that_are_no_markup() -> None:
    async with client(Flow()) as browser:
        page = await browser.get("/connect/bad")
        assert page.status_code == 404
        assert "&lt;i&gt;no&lt;/i&gt;" in page.text
        assert (await browser.get("/connect/")).status_code == 404
        assert (await browser.get("/connect/a/b")).json() == {"error": "not found"}
