"""Who waits for changes hears of exactly those resources that they may read, by the rules as they are then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.definitions.lock import NO_LOCK, Lock, pin
from gateway.watching import of_principal

from .fakes import AUTH, LISTINGS, Core, person, said

TEXT = """
routes:
  - name: deploy
    backend: {url: "http://deploy/mcp"}
    scopes: [deploy:read]
    pins: %s
    resources:
      "deploy://service/secret*": {scopes: [deploy:secret]}
      "deploy://service/hidden": {hidden: true}
toolsets:
  some: {routes: [deploy]}
"""
DEPLOY = next(one for one in LISTINGS if one.route == "deploy")
STATE, SERVICE = "deploy://state", "deploy://service/api"
URIS = [STATE, SERVICE, "deploy://service/secret1", "deploy://service/hidden", "deploy://nothing", "other://x"]


def core(pins: str = "'off'", lock: Lock | None = None, **changed: Any) -> Core:
    made = Core([replace(DEPLOY, **changed)], text=AUTH + TEXT % pins)
    made.lock = lock
    made.reload()
    return made


def route_of(of: Core, *scopes: str, toolset: str | None = None) -> Any:
    return of_principal(person("ada", *scopes), toolset, lambda: of.present, of.clock())["route_of"]


@pytest.mark.parametrize("toolset", [None, "some"])
@pytest.mark.parametrize("token", ["bob", "eve", "ada"])
async def test_what_is_watched_is_what_is_read(token: str, toolset: str | None) -> None:
    made = core()
    watched = {uri: route_of(made, *made.who[token].scopes, toolset=toolset)(uri) for uri in URIS}
    for uri in URIS:
        answer = await made.modern("resources/read", params={"uri": uri}, token=token)
        assert ("result" in said(answer)) == (watched[uri] == "deploy"), uri


def test_a_uri_of_a_template_goes_by_its_own_rule() -> None:
    made = core()
    assert [route_of(made, "deploy:read")(uri) for uri in URIS[1:4]] == ["deploy", None, None]
    assert route_of(made, "deploy:secret")(URIS[2]) == "deploy"
    assert route_of(made, "deploy:secret")(SERVICE) is None


def test_what_is_quarantined_is_not_watched_though_a_template_stands_for_it() -> None:
    templates = ({"uriTemplate": "deploy://{+rest}", "name": "any"},)
    pinned = Lock({"deploy": {"template": {"deploy://{+rest}": pin(templates[0])}}})
    made = core("{resources: block}", pinned, templates=templates)
    hears = route_of(made, "deploy:read")
    assert (hears(STATE), hears(SERVICE)) == (None, "deploy")
    made.lock = None
    made.reload()
    assert hears(STATE) == "deploy"
    made.lock = NO_LOCK
    made.reload()
    assert hears(SERVICE) is None


def test_of_a_toolset_that_is_gone_nobody_hears() -> None:
    made = core()
    hears = of_principal(person("ada", "deploy:read"), "gone", lambda: made.present, made.clock())
    assert hears["route_of"](STATE) is None
    assert hears["sees"]("deploy") is False
    present = of_principal(person("ada", "deploy:read"), "some", lambda: made.present, made.clock())
    assert present["sees"]("deploy") is True
    assert present["sees"]("other") is False
