"""A person with a browser, who connects an account."""

import html
import re
from typing import Any

import httpx2

from .harness import NO_TLS, RESOURCE, Gateway

URL = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}
"""What a client declares that opens URLs for its person."""


class Browser:
    """Follows what a person would; the gateway's ``public`` name leads to its port."""

    def __init__(self, gateway: Gateway, public: str = RESOURCE) -> None:
        self.public = public.removesuffix("/mcp")
        self.port = gateway.port
        self.cookies: dict[str, str] = {}

    def send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        ours = url.startswith(self.public)
        local = url.replace(self.public, f"http://127.0.0.1:{self.port}")
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if ours else {}
        answer = httpx2.request(method, local, headers=cookies, trust_env=False, verify=NO_TLS, **options)
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def confirm(self, link: str) -> str:
        """Open the page and send its form; where that leads."""
        page = self.send("GET", link)
        assert page.status_code == 200, page.text
        form = html.unescape(re.search(r'name="form" value="([^"]+)"', page.text)[1])  # type: ignore[index]
        answer = self.send("POST", link, data={"form": form})
        assert answer.status_code == 303, answer.text
        location: str = answer.headers["location"]
        return location

    def connect(self, link: str) -> httpx2.Response:
        """The whole way."""
        granted = self.send("GET", self.confirm(link))
        return self.send("GET", granted.headers["location"])


def question(answer: httpx2.Response) -> dict[str, Any]:
    result = answer.json()["result"]
    assert result["resultType"] == "input_required", result
    asked: dict[str, Any] = result["inputRequests"]["mcp-gateway-connect"]
    assert asked["method"] == "elicitation/create"
    return dict(asked["params"])
