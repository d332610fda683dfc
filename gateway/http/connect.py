"""The pages on which a person connects an account: shown, confirmed, and come back to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from html import escape
from typing import Any, Protocol
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

MAX_FORM = 8 * 1024
_COOKIE_SECONDS = 1800


class Page(Protocol):
    """What the first page names."""

    route: str
    subject: str
    issuer: str
    server: str
    form: str


class Flow(Protocol):
    """What happens behind the pages: ``backends.credentials.connecting.Connections``.

    Everything raises an exception with ``status`` whose text is for the person.
    """

    @property
    def secure(self) -> bool:
        """Whether browsers come over https."""
        ...

    async def page(self, invitation: str, browser: str) -> Any:
        """What is shown: a ``Page``."""
        ...

    async def begin(self, invitation: str, browser: str, form: str) -> str:
        """Where the person is sent."""
        ...

    async def finish(self, answer: Mapping[str, str], browser: str) -> str:
        """The route whose account is connected."""
        ...


def connect_app(flow: Flow, failure: type[Exception]) -> FastAPI:
    """``/connect/<invitation>`` and ``/connect/callback``. ``failure`` is what the flow raises."""
    app = FastAPI(title="mcp-gateway connect", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.get("/connect/callback")
    async def callback(request: Request) -> Response:
        route = await flow.finish(dict(request.query_params), _browser(request, flow))
        return _html("Connected", f"<p>Your account for <b>{escape(route)}</b> is connected.</p><p>{_BACK}</p>")

    @app.get("/connect/{invitation}")
    async def shown(invitation: str, request: Request) -> Response:
        browser = _browser(request, flow) or secrets.token_urlsafe(32)
        page = await flow.page(invitation, browser)
        response = _html("Connect an account", _confirmation(page), server=page.server)
        response.set_cookie(
            _cookie(flow), browser, max_age=_COOKIE_SECONDS, path="/", secure=flow.secure, httponly=True, samesite="lax"
        )
        return response

    @app.post("/connect/{invitation}")
    async def confirmed(invitation: str, request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _failed("This form was sent by another site.", 403)
        url = await flow.begin(invitation, _browser(request, flow), await _form(request))
        return Response(status_code=303, headers={"location": url, **_headers()})

    @app.exception_handler(failure)
    async def failed(request: Request, error: Any) -> Response:
        return _failed(str(error), error.status)

    @app.exception_handler(404)
    async def missing(request: Request, error: Any) -> Response:
        return JSONResponse({"error": "not found"}, 404)

    return app


_BACK = "Go back to your agent; you can close this page."


def _confirmation(page: Page) -> str:
    return (
        f"<p>An agent asks to use an account of yours at <b>{escape(page.server)}</b>, "
        f"for <b>{escape(page.route)}</b>.</p><p>It works for <b>{escape(page.subject)}</b> ({escape(page.issuer)}). "
        "Go on only if that is you, and you asked your agent for this. "
        "If somebody sent you this link, close the page: they would use your account.</p>"
        f'<form method="post"><input type="hidden" name="form" value="{escape(page.form)}">'
        "<button>That is me: connect my account</button></form>"
    )


def _html(title: str, body: str, status: int = 200, server: str = "") -> HTMLResponse:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>body{font:1rem/1.5 sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}</style>"
        f"<h1>{title}</h1>{body}"
    )
    return HTMLResponse(text, status, _headers(server))


def _failed(message: str, status: int) -> Response:
    return _html("Not connected", f"<p>{escape(message)}</p>", status)


def _headers(server: str = "") -> dict[str, str]:
    """No frame, no script, no copy, no referrer; the form leads here and on to the authorization server."""
    onward = f" https://{server} http://{server}" if server else ""
    return {
        "content-security-policy": (
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self'{onward}"
        ),
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def _cookie(flow: Flow) -> str:
    return "__Host-mcp-gateway-connect" if flow.secure else "mcp-gateway-connect"


def _browser(request: Request, flow: Flow) -> str:
    return request.cookies.get(_cookie(flow), "")


async def _form(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            return ""
    return parse_qs(body.decode("ascii", "replace")).get("form", [""])[0]
