import pytest

from gateway.backends.credentials.service import ServiceToken, StaticToken
from gateway.backends.link import NoCredentials
from gateway.models import Principal

from .provider import ISSUER, Provider

ALICE = Principal("https://idp", "alice", token=b"hers")
BOB = Principal("https://idp", "bob")


async def test_all_principals_share_one_token_and_theirs_goes_nowhere() -> None:
    provider = Provider()
    source = ServiceToken("tools", provider.endpoint(issuer=ISSUER), clock=lambda: provider.now)
    assert [await source.token(one) for one in (ALICE, BOB)] == ["t1", "t1"]
    assert len(provider.forms) == 1
    assert "hers" not in str(provider.forms)
    assert source.denied(ALICE, 403) is None
    await source.aclose()


async def test_it_is_had_anew_when_it_is_not_accepted() -> None:
    provider = Provider()
    source = ServiceToken("tools", provider.endpoint(issuer=ISSUER), clock=lambda: provider.now)
    assert source.refused(ALICE, await source.token(ALICE))
    assert await source.token(BOB) == "t2"


async def test_a_server_that_says_nothing_of_use_gives_no_token() -> None:
    provider = Provider()
    provider.answers = [(500, {})]
    source = ServiceToken("tools", provider.endpoint(issuer=ISSUER), clock=lambda: provider.now)
    with pytest.raises(NoCredentials):
        await source.token(ALICE)


async def test_a_token_that_is_given_is_the_only_one() -> None:
    source = StaticToken("fixed")
    assert await source.token(ALICE) == "fixed"
    assert not source.refused(ALICE, "fixed")
    assert source.denied(ALICE, 401) is None
    await source.aclose()
