import asyncio
import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.backends.credentials.connecting import FLOW, INVITED, Account, ConnectError, Connections
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import Grants
from gateway.backends.credentials.service import StaticToken
from gateway.models import Principal
from gateway.routes import Auth
from gateway.stores.vault import MemoryVault

from ...fakes import FakeAudit
from .provider import ISSUER, METADATA, Provider

ALICE = Principal(ISSUER, "alice")
PLACE = "tools https://tools.example/mcp"
ELSEWHERE = Principal("https://idp.elsewhere.example", "alice")


class World:
    def __init__(self) -> None:
        self.provider = Provider()
        self.provider.now = 1000.0
        self.provider.documents[METADATA] |= {
            "authorization_endpoint": f"{ISSUER}/authorize",
            "code_challenge_methods_supported": ["S256"],
        }
        self.audit = FakeAudit()
        self.vault = MemoryVault(lambda: self.provider.now)
        self.grants = Grants((b"k" * 32,), self.vault, lambda: self.provider.now)
        auth = Auth.model_validate({"resource": "https://g.example/mcp", "issuers": [{"issuer": ISSUER}]})
        self.flow = Connections(
            (b"k" * 32,),
            self.vault,
            self.grants,
            auth=lambda: auth,
            now=lambda: self.provider.now,
            audit=self.audit,
        )
        endpoint = self.provider.endpoint("authorization_code", issuer=ISSUER, scopes="[read, openid]")
        tokens = GrantTokens("tools", endpoint, StaticToken(""), self.grants, now=lambda: self.provider.now)
        self.flow.register("tools", Account(tokens, endpoint._client))

    def link(self, principal: Principal = ALICE) -> str:
        url = self.flow.invite("tools", principal)
        assert url.startswith("https://g.example/connect/")
        return url.rpartition("/")[2]

    async def begun(self, principal: Principal = ALICE, browser: str = "b") -> dict[str, str]:
        """What the authorization server was asked."""
        link = self.link(principal)
        page = await self.flow.page(link, browser)
        url = await self.flow.begin(link, browser, page.form)
        assert url.startswith(f"{ISSUER}/authorize?")
        return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}

    def grant(self, **members: Any) -> None:
        answer = {"access_token": "a", "token_type": "Bearer", "expires_in": 600, "refresh_token": "r", **members}
        self.provider.answers = [(200, answer)]


def id_token(**claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


async def test_from_the_link_to_the_grant() -> None:
    world = World()
    asked = await world.begun()
    world.grant()
    assert await world.flow.finish({"state": asked["state"], "code": "c"}, "b") == "tools"
    kept = await world.grants.get(PLACE, ALICE)
    assert kept is not None
    assert kept.refresh_token == "r"
    form = world.provider.forms[-1]
    assert form["grant_type"] == "authorization_code"
    assert form["code"] == "c"
    assert form["redirect_uri"] == asked["redirect_uri"] == "https://g.example/connect/callback"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert (asked["code_challenge"], asked["code_challenge_method"]) == (challenge, "S256")
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", "gateway", "read openid")
    assert asked["resource"] == "https://tools.example/mcp"
    assert world.audit.order == ["intent", "end"]
    end = world.audit.only
    assert (end.method, end.route, end.principal, end.outcome) == ("account/connect", "tools", ALICE, "ok")
    assert (end.http_status, end.dispatched) == (200, True)


async def test_consent_is_asked_for_where_the_grant_is_to_be_renewed() -> None:
    world = World()
    assert "prompt" not in await world.begun()
    endpoint = world.provider.endpoint("authorization_code", issuer=ISSUER, scopes="[offline_access]")
    tokens = GrantTokens("tools", endpoint, StaticToken(""), world.grants)
    world.flow.register("tools", Account(tokens, endpoint._client))
    assert (await world.begun())["prompt"] == "consent"


async def test_the_page_names_the_route_the_principal_and_the_server_and_opening_it_uses_nothing_up() -> None:
    world = World()
    link = world.link()
    for _ in range(3):
        page = await world.flow.page(link, "b")
    assert (page.route, page.subject, page.issuer, page.server) == ("tools", "alice", ISSUER, "idp.example")


async def test_a_link_tells_nobody_whose_it_is() -> None:
    assert "alice" not in world_link_in_clear()


def world_link_in_clear() -> str:
    link = World().link()
    return base64.urlsafe_b64decode(link + "=" * (-len(link) % 4)).decode("latin-1")


async def test_a_link_works_once_and_soon() -> None:
    world = World()
    link = world.link()
    page = await world.flow.page(link, "b")
    await world.flow.begin(link, "b", page.form)
    with pytest.raises(ConnectError, match="was used"):
        await world.flow.begin(link, "b", page.form)
    late = world.link()
    world.provider.now += INVITED
    with pytest.raises(ConnectError, match="not valid"):
        await world.flow.page(late, "b")


@pytest.mark.parametrize("link", ["", "x", "callback2", "é" * 20])
async def test_a_link_of_somebody_else_is_none(link: str) -> None:
    with pytest.raises(ConnectError, match="not valid"):
        await World().flow.page(link, "b")


async def test_a_link_of_a_route_that_is_gone_leads_nowhere() -> None:
    world = World()
    link = world.link()
    world.flow.only({"others"})
    with pytest.raises(ConnectError, match="not valid"):
        await world.flow.page(link, "b")


async def test_only_the_form_of_the_page_that_this_browser_was_shown_goes_on() -> None:
    world = World()
    link, other = world.link(), world.link()
    mine = await world.flow.page(link, "b")
    theirs = await world.flow.page(link, "attacker")
    another = await world.flow.page(other, "b")
    for form in ("", "x", theirs.form, another.form):
        with pytest.raises(ConnectError, match="does not belong"):
            await world.flow.begin(link, "b", form)
    with pytest.raises(ConnectError, match="does not belong"):
        await world.flow.begin(link, "", mine.form)
    assert await world.flow.begin(link, "b", mine.form)


async def test_what_was_begun_in_one_browser_does_not_end_in_another() -> None:
    world = World()
    asked = await world.begun()
    for browser in ("", "victim"):
        with pytest.raises(ConnectError, match="another browser"):
            await world.flow.finish({"state": asked["state"], "code": "c"}, browser)
    assert await world.grants.get(PLACE, ALICE) is None


async def test_an_answer_counts_once_and_soon_and_only_with_a_state_of_ours() -> None:
    world = World()
    asked = await world.begun()
    world.grant()
    await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    with pytest.raises(ConnectError, match="used already"):
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    late = await world.begun()
    world.provider.now += FLOW
    for state in (late["state"], "", "x", world.link()):
        with pytest.raises(ConnectError, match="nothing that was begun"):
            await world.flow.finish({"state": state, "code": "c"}, "b")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "access_denied"}, "Nothing was granted"),
        ({}, "no code"),
        ({"code": "c", "iss": "https://evil.example"}, "another authorization server"),
        ({"error": "access_denied", "iss": "https://evil.example"}, "another authorization server"),
    ],
)
async def test_an_answer_that_grants_nothing_connects_nothing(answer: dict[str, str], words: str) -> None:
    world = World()
    asked = await world.begun()
    with pytest.raises(ConnectError, match=words):
        await world.flow.finish({"state": asked["state"], **answer}, "b")
    assert world.provider.forms == []


async def test_a_server_that_says_that_it_names_itself_has_to() -> None:
    world = World()
    world.provider.documents[METADATA]["authorization_response_iss_parameter_supported"] = True
    asked = await world.begun()
    with pytest.raises(ConnectError, match="another authorization server"):
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")


async def test_a_server_without_pkce_is_not_used() -> None:
    world = World()
    world.provider.documents[METADATA]["code_challenge_methods_supported"] = ["plain"]
    with pytest.raises(ConnectError, match="does not offer"):
        await world.flow.page(world.link(), "b")


@pytest.mark.parametrize(
    ("claims", "same"),
    [
        ({"iss": ISSUER, "sub": "alice"}, True),
        ({"iss": ISSUER, "sub": "bob"}, False),
        ({"iss": "https://evil.example", "sub": "alice"}, False),
        ({}, False),
    ],
)
async def test_who_signs_in_at_the_clients_own_issuer_is_who_called(claims: dict[str, str], *, same: bool) -> None:
    world = World()
    asked = await world.begun()
    world.grant(id_token=id_token(**claims))
    if same:
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    else:
        with pytest.raises(ConnectError, match="somebody else"):
            await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert (await world.grants.get(PLACE, ALICE) is not None) is same


async def test_at_another_server_people_have_other_names() -> None:
    world = World()
    asked = await world.begun(ELSEWHERE)
    world.grant(id_token=id_token(iss=ISSUER, sub="4711"))
    await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert await world.grants.get(PLACE, ELSEWHERE) is not None


async def test_a_token_endpoint_that_refuses_is_told_without_its_words() -> None:
    world = World()
    asked = await world.begun()
    world.provider.answers = [(400, {"error": "invalid_grant"})]
    with pytest.raises(ConnectError, match="gave no token") as caught:
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert "invalid_grant" not in str(caught.value)


async def test_a_code_of_one_authorization_server_is_not_taken_to_another() -> None:
    world = World()
    asked = await world.begun()
    another = world.provider.endpoint(
        "authorization_code", token_url="https://new.example/token", authorization_url="https://new.example/authorize"
    )
    tokens = GrantTokens("tools", another, StaticToken(""), world.grants)
    world.flow.register("tools", Account(tokens, another._client))
    with pytest.raises(ConnectError, match="Another authorization server"):
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert world.provider.forms == []


async def test_an_answer_that_connects_nothing_is_on_record_with_its_reason() -> None:
    world = World()
    asked = await world.begun()
    with pytest.raises(ConnectError):
        await world.flow.finish({"state": asked["state"], "code": "c"}, "victim")
    with pytest.raises(ConnectError):
        await world.flow.finish({"state": "forged", "code": "c"}, "b")
    end = world.audit.only
    assert (end.route, end.principal, end.outcome, end.http_status) == ("tools", ALICE, "invalid_request", 403)
    assert end.rule.startswith("This was begun in another browser")
    assert not end.dispatched


async def test_who_signs_in_as_somebody_else_is_on_record() -> None:
    world = World()
    asked = await world.begun()
    world.grant(id_token=id_token(iss=ISSUER, sub="bob"))
    with pytest.raises(ConnectError):
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert world.audit.order == ["intent", "end"]
    assert (world.audit.only.outcome, world.audit.only.dispatched) == ("invalid_request", True)


async def test_without_a_record_no_grant_is_had() -> None:
    world = World()
    asked = await world.begun()
    world.audit.broken = True
    with pytest.raises(ConnectError, match="cannot record") as caught:
        await world.flow.finish({"state": asked["state"], "code": "c"}, "b")
    assert caught.value.status == 503
    assert world.provider.forms == []


async def test_a_browser_that_leaves_takes_no_record_with_it() -> None:
    world = World()
    asked = await world.begun()
    world.audit.gate = asyncio.Event()
    task = asyncio.create_task(world.flow.finish({"state": asked["state"], "code": "c"}, "b"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert world.audit.only.outcome == "aborted"
