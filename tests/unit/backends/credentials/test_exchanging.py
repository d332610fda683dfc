import asyncio
from dataclasses import replace

import pytest

from gateway.backends.credentials.exchanging import ExchangedTokens
from gateway.backends.credentials.service import StaticToken
from gateway.backends.link import NoCredentials
from gateway.backends.verdict import NOBODY
from gateway.models import Principal

from .provider import ISSUER, Provider

ALICE = Principal("https://idp", "alice", token=b"hers")
BOB = Principal("https://idp", "bob", token=b"his")


def exchanged(provider: Provider, most: int = 100) -> ExchangedTokens:
    endpoint = provider.endpoint("token_exchange", issuer=ISSUER)
    return ExchangedTokens("tools", endpoint, StaticToken("own"), clock=lambda: provider.now, most=most)


async def test_each_principal_has_a_token_in_exchange_for_its_own() -> None:
    provider = Provider()
    source = exchanged(provider)
    assert [await source.token(one) for one in (ALICE, BOB, ALICE)] == ["t1", "t2", "t1"]
    assert [form["subject_token"] for form in provider.forms] == ["hers", "his"]
    assert provider.forms[0]["resource"] == "https://tools.example/mcp"
    await source.aclose()


async def test_another_token_of_the_same_principal_is_exchanged_again_because_it_may_be_for_less() -> None:
    provider = Provider()
    source = exchanged(provider)
    await source.token(ALICE)
    assert await source.token(replace(ALICE, token=b"narrow")) == "t2"


async def test_a_token_is_exchanged_again_when_it_ends_or_is_not_accepted() -> None:
    provider = Provider()
    source = exchanged(provider)
    assert source.refused(ALICE, await source.token(ALICE))
    assert await source.token(ALICE) == "t2"
    provider.now = 600.0
    assert await source.token(ALICE) == "t3"


async def test_the_gateway_itself_has_a_token_of_its_own() -> None:
    provider = Provider()
    source = exchanged(provider)
    assert await source.token(NOBODY) == "own"
    assert provider.forms == []
    assert source.denied(NOBODY, 401) is None


async def test_what_is_kept_is_bounded() -> None:
    provider = Provider()
    source = exchanged(provider, most=3)
    for number in range(10):
        await source.token(replace(ALICE, token=b"%d" % number))
    assert len(source) == 3
    await source.token(replace(ALICE, token=b"9"))
    assert len(provider.forms) == 10


@pytest.mark.parametrize(
    ("code", "words"),
    [("invalid_grant", "not open to you"), ("access_denied", "not open to you"), ("invalid_client", "the gateway")],
)
async def test_a_refusal_says_whose_matter_it_is(code: str, words: str) -> None:
    provider = Provider()
    provider.answers = [(400, {"error": code})]
    source = exchanged(provider)
    with pytest.raises(NoCredentials, match=words) as caught:
        await source.token(ALICE)
    assert not caught.value.retryable
    assert await source.token(BOB) == "t2"
    with pytest.raises(NoCredentials):
        await source.token(ALICE)
    assert len(provider.forms) == 2


async def test_while_the_server_is_away_principals_do_not_wait_for_it_one_after_the_other() -> None:
    provider = Provider()
    provider.answers = [(503, {})]
    source = exchanged(provider)
    for number in range(5):
        with pytest.raises(NoCredentials):
            await source.token(replace(ALICE, token=b"%d" % number))
    assert len(provider.forms) == 1
    provider.now += 60.0
    assert await source.token(BOB) == "t2"


@pytest.mark.parametrize(
    "answer",
    [
        {"token_type": "Bearer"},
        {"access_token": "t", "token_type": "N_A"},
        {"access_token": "t", "token_type": "Bearer", "expires_in": "soon"},
    ],
)
async def test_an_answer_of_no_use_for_one_principal_holds_up_no_other(answer: dict[str, str]) -> None:
    provider = Provider()
    provider.answers = [(200, answer)]
    source = exchanged(provider)
    with pytest.raises(NoCredentials):
        await source.token(ALICE)
    assert await source.token(BOB) == "t2"
    with pytest.raises(NoCredentials):
        await source.token(ALICE)
    assert len(provider.forms) == 2


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_an_endpoint_that_is_out_of_order_is_so_for_all(status: int) -> None:
    provider = Provider()
    provider.answers = [(status, {})]
    source = exchanged(provider)
    for principal in (ALICE, BOB):
        with pytest.raises(NoCredentials):
            await source.token(principal)
    assert len(provider.forms) == 1


async def test_a_principal_without_a_token_is_refused_and_nothing_is_sent() -> None:
    provider = Provider()
    with pytest.raises(NoCredentials):
        await exchanged(provider).token(replace(ALICE, token=b""))
    assert provider.forms == []


async def test_one_token_is_exchanged_once_for_all_calls_that_wait() -> None:
    provider = Provider()
    source = exchanged(provider)
    assert set(await asyncio.gather(*(source.token(ALICE) for _ in range(20)))) == {"t1"}
    assert len(provider.forms) == 1


async def test_a_principal_that_the_backend_does_not_admit_is_told_and_nobody_else_is_concerned() -> None:
    denial = exchanged(Provider()).denied(ALICE, 403)
    assert denial is not None
    assert not denial.dispatched
    assert not denial.retryable
