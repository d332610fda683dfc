"""The life of an issuer's keys: fetched, shared, refreshed, kept, dropped. No sockets, no real time."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.devtokens import DevIssuer
from gateway.egress.documents import MAX_DOCUMENT, document_client
from gateway.errors import IssuerUnavailable
from gateway.routes import Auth
from gateway.stores.jwks import JwksStore

ISSUER = "https://idp.example.com/realm"
URI = "https://idp.example.com/keys"
ONE = DevIssuer.create(ISSUER, algorithm="ES256")
TWO = DevIssuer.create(ISSUER, algorithm="EdDSA")
RSA = DevIssuer.create(ISSUER, algorithm="RS256")


class Time:
    """A clock that is set, and a sleep that ends when the clock has been moved on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._wakers: list[tuple[float, asyncio.Event]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._wakers.append((self.now + seconds, woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        await settle()
        self.now += seconds
        due = [woken for at, woken in self._wakers if at <= self.now]
        self._wakers = [(at, woken) for at, woken in self._wakers if at > self.now]
        for woken in due:
            woken.set()
        await settle()


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


def streamed(answer: httpx2.Response) -> httpx2.Response:
    """The same answer, still to be read, in two pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        half = len(answer.content) // 2
        yield answer.content[:half]
        yield answer.content[half:]

    return httpx2.Response(answer.status_code, headers=answer.headers, content=pieces())


class Idp:
    """An issuer's web server: what it answers is set, what it was asked is kept."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.requests: list[httpx2.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        await self.gate.wait()
        answer = self.documents.get(str(request.url), 404)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return streamed(httpx2.Response(answer))
        return streamed(answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer))

    def publish(self, *issuers: DevIssuer) -> None:
        self.documents[URI] = keys_of(*issuers)

    @property
    def asked(self) -> list[str]:
        return [str(request.url) for request in self.requests]


def keys_of(*issuers: DevIssuer) -> dict[str, Any]:
    return {"keys": [key for issuer in issuers for key in issuer.jwks()["keys"]]}


def auth(**issuer: Any) -> Auth:
    entry = {"issuer": ISSUER} | (issuer or {"jwks_uri": URI})
    times = {"ttl": "10m", "cooldown": "30s", "stale": "1h"}
    return Auth.model_validate({"resource": "https://mcp.example.com/mcp", "issuers": [entry], "jwks": times})


class World:
    def __init__(self, rules: Auth | None = None) -> None:
        self.idp = Idp()
        self.time = Time()
        self.store = JwksStore(
            rules or auth(),
            lambda reach: document_client(reach, httpx2.MockTransport(self.idp)),
            clock=self.time,
            sleep=self.time.sleep,
        )

    async def kids(self, *issuers: DevIssuer) -> list[int]:
        """How many keys are found for each."""
        return [len(await self.store.find(ISSUER, each.kid, each.algorithm)) for each in issuers]


@asynccontextmanager
async def world(*published: DevIssuer, rules: Auth | None = None, start: bool = True) -> AsyncIterator[World]:
    made = World(rules)
    if published:
        made.idp.publish(*published)
    if start:
        await made.store.start()
    try:
        yield made
    finally:
        made.idp.gate.set()
        await made.store.aclose()


async def test_keys_are_there_after_start_and_verify_a_signature() -> None:
    async with world(ONE) as w:
        (key,) = await w.store.find(ISSUER, ONE.kid, "ES256")
        assert jwt.decode(ONE.mint("ada", [], "x"), key, ["ES256"], audience="x")["sub"] == "ada"
        assert w.idp.asked == [URI]
        assert w.store.ready
        assert w.store.without_keys == ()


async def test_an_issuer_that_is_away_at_start_is_no_error_but_its_tokens_cannot_be_judged() -> None:
    async with world() as w:
        assert not w.store.ready
        assert w.store.without_keys == (ISSUER,)
        with pytest.raises(IssuerUnavailable) as caught:
            await w.store.find(ISSUER, ONE.kid, "ES256")
        assert caught.value.retry_after == 1.0
        assert "example" not in str(caught.value)


async def test_keys_that_were_never_had_are_tried_again_without_any_request() -> None:
    async with world() as w:
        w.idp.publish(ONE)
        await w.time.advance(1)
        assert w.store.ready
        assert await w.kids(ONE) == [1]


async def test_attempts_without_keys_grow_apart_up_to_the_cooldown() -> None:
    async with world() as w:
        times = []
        seen = len(w.idp.requests)
        for _ in range(100):
            await w.time.advance(1)
            if len(w.idp.requests) > seen:
                seen = len(w.idp.requests)
                times.append(w.time.now - 1000)
        assert times == [1, 3, 7, 15, 31, 61, 91]


async def test_callers_share_one_fetch() -> None:
    async with world(ONE, start=False) as w:
        w.idp.gate.clear()
        callers = [asyncio.create_task(w.store.find(ISSUER, ONE.kid, "ES256")) for _ in range(20)]
        await settle()
        w.idp.gate.set()
        assert [len(found) for found in await asyncio.gather(*callers)] == [1] * 20
        assert len(w.idp.requests) == 1


async def test_a_caller_that_leaves_does_not_stop_the_fetch_of_the_others() -> None:
    async with world(ONE, start=False) as w:
        w.idp.gate.clear()
        leaving, staying = (asyncio.create_task(w.store.find(ISSUER, ONE.kid, "ES256")) for _ in range(2))
        await settle()
        leaving.cancel()
        await settle()
        w.idp.gate.set()
        assert len(await staying) == 1
        assert len(w.idp.requests) == 1


async def test_an_unknown_kid_fetches_once_in_a_cooldown_whatever_comes_of_it() -> None:
    async with world(ONE) as w:
        for _ in range(5):
            assert await w.kids(TWO) == [0]
        assert len(w.idp.requests) == 1
        await w.time.advance(30)
        w.idp.documents[URI] = 500
        for _ in range(5):
            assert await w.kids(TWO) == [0]
        assert len(w.idp.requests) == 2
        await w.time.advance(29)
        assert await w.kids(TWO, ONE) == [0, 1]
        assert len(w.idp.requests) == 2


async def test_a_new_key_is_found_by_its_first_token_after_the_cooldown() -> None:
    async with world(ONE) as w:
        w.idp.publish(ONE, TWO)
        await w.time.advance(30)
        assert await w.kids(TWO) == [1]


async def test_a_known_key_never_waits_for_a_fetch_that_is_under_way() -> None:
    async with world(ONE) as w:
        await w.time.advance(30)
        w.idp.gate.clear()
        waiting = asyncio.create_task(w.store.find(ISSUER, TWO.kid, "EdDSA"))
        await settle()
        assert await w.kids(ONE) == [1]
        assert not waiting.done()
        w.idp.gate.set()
        assert await waiting == ()


async def test_keys_are_refreshed_before_their_time_without_any_request() -> None:
    async with world(ONE) as w:
        await w.time.advance(479)
        assert len(w.idp.requests) == 1
        await w.time.advance(1)
        assert len(w.idp.requests) == 2


async def test_a_withdrawn_key_is_dropped_on_the_next_good_fetch() -> None:
    async with world(ONE, TWO) as w:
        before = w.store.generation
        w.idp.publish(TWO)
        await w.time.advance(480)
        assert w.store.generation != before
        assert await w.kids(ONE, TWO) == [0, 1]


async def test_the_generation_stays_while_the_keys_do() -> None:
    async with world(ONE, TWO) as w:
        before = w.store.generation
        w.idp.publish(TWO, ONE)
        await w.time.advance(480)
        assert len(w.idp.requests) == 2
        assert w.store.generation == before


async def test_the_same_kid_with_another_key_is_a_change() -> None:
    async with world(ONE) as w:
        before = w.store.generation
        other = DevIssuer.create(ISSUER, algorithm="ES256").jwks()["keys"][0] | {"kid": ONE.kid}
        w.idp.documents[URI] = {"keys": [other]}
        await w.time.advance(480)
        assert w.store.generation != before


USELESS: dict[str, Any] = {
    "server error": 500,
    "not found": 404,
    "no content": 204,
    "redirect": httpx2.Response(302, headers={"Location": "https://evil.example.com/"}),
    "no JSON": httpx2.Response(200, content=b"<html>"),
    "nothing": httpx2.Response(200, content=b""),
    "a list": [],
    "no keys member": {},
    "keys an object": {"keys": {}},
    "no key": {"keys": []},
    "no usable key": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]},
    "too many keys": {"keys": TWO.jwks()["keys"] * 101},
    "equal members": httpx2.Response(200, content=b'{"keys":[],"keys":[]}'),
    "too long": httpx2.Response(200, content=json.dumps(keys_of(TWO)).encode() + b" " * MAX_DOCUMENT),
    "compressed": httpx2.Response(
        200, headers={"Content-Encoding": "x-unknown"}, content=json.dumps(keys_of(TWO)).encode()
    ),
    "refused": httpx2.ConnectError("refused"),
    "slow": httpx2.ReadTimeout("slow"),
    "broken": httpx2.RemoteProtocolError("broken"),
    "no socket": OSError("no socket"),
}


@pytest.mark.parametrize("answer", list(USELESS.values()), ids=list(USELESS))
async def test_a_useless_answer_replaces_nothing(answer: Any) -> None:
    async with world(ONE) as w:
        before = w.store.generation
        w.idp.documents[URI] = answer
        await w.time.advance(480)
        assert w.idp.asked == [URI, URI]
        assert await w.kids(ONE) == [1]
        assert w.store.generation == before


async def test_old_keys_go_on_while_the_issuer_is_away_but_not_for_ever() -> None:
    async with world(ONE) as w:
        w.idp.documents[URI] = 500
        for _ in range(119):
            await w.time.advance(30)
            assert await w.kids(ONE) == [1]
        before = w.store.generation
        await w.time.advance(30)
        assert w.store.generation != before, "what was verified before must be judged anew"
        assert not w.store.ready
        with pytest.raises(IssuerUnavailable):
            await w.kids(ONE)
        w.idp.publish(ONE)
        await w.time.advance(30)
        assert await w.kids(ONE) == [1]


async def test_an_outage_costs_one_attempt_in_a_cooldown() -> None:
    async with world(ONE) as w:
        w.idp.documents[URI] = 500
        await w.time.advance(600)
        before = len(w.idp.requests)
        for _ in range(20):
            assert await w.kids(ONE) == [1]
        assert len(w.idp.requests) == before


async def test_keys_past_their_time_are_looked_at_before_they_are_used() -> None:
    async with world(ONE, start=False) as w:
        assert await w.kids(ONE) == [1]
        w.idp.publish(TWO)
        w.time.now += 599
        assert await w.kids(ONE) == [1]
        w.time.now += 1
        assert await w.kids(ONE) == [0]


async def test_a_token_without_kid_gets_all_keys_that_fit() -> None:
    async with world(ONE, TWO, RSA) as w:
        assert [len(await w.store.find(ISSUER, None, name)) for name in ("ES256", "EdDSA", "RS256", "PS256")] == [
            1,
            1,
            1,
            0,
        ]


async def test_an_issuer_that_is_not_configured_has_no_keys_and_is_not_asked() -> None:
    async with world(ONE) as w:
        assert await w.store.find("https://evil.example.com", ONE.kid, "ES256") == ()
        assert w.idp.asked == [URI]


async def test_no_task_outlives_the_store() -> None:
    w = World()
    w.idp.gate.clear()
    before = asyncio.all_tasks()
    starting = asyncio.create_task(w.store.start())
    await settle()
    await w.store.aclose()
    await starting
    await w.store.aclose()
    assert asyncio.all_tasks() <= before | {starting}


async def test_a_closed_store_still_has_its_keys_and_fetches_nothing() -> None:
    async with world(ONE) as w:
        await w.store.aclose()
        await w.time.advance(60)
        assert await w.kids(ONE, TWO) == [1, 0]
        assert len(w.idp.requests) == 1


class TestWhichKeysCount:
    @staticmethod
    async def usable(jwk: Any, algorithm: str) -> bool:
        async with world(rules=auth(), start=False) as w:
            w.idp.documents[URI] = {"keys": [jwk, TWO.jwks()["keys"][0] | {"kid": "beside"}]}
            await w.store.start()
            assert len(await w.store.find(ISSUER, "beside", "EdDSA")) == 1, "one bad key spoils no other"
            return bool(await w.store.find(ISSUER, "k", algorithm))

    @staticmethod
    def jwk(by: DevIssuer, **changes: Any) -> dict[str, Any]:
        made = by.jwks()["keys"][0] | {"kid": "k"} | changes
        return {name: value for name, value in made.items() if value is not ...}

    @pytest.mark.parametrize(
        ("by", "changes", "algorithm"),
        [
            (ONE, {}, "ES256"),
            (ONE, {"use": ..., "alg": ...}, "ES256"),
            (ONE, {"key_ops": ["verify"]}, "ES256"),
            (ONE, {"x5c": ["MIIB"], "x5u": "https://evil.example.com", "unknown": 1}, "ES256"),
            (RSA, {"alg": ...}, "PS512"),
            (RSA, {}, "RS256"),
            (TWO, {}, "EdDSA"),
        ],
    )
    async def test_usable(self, by: DevIssuer, changes: dict[str, Any], algorithm: str) -> None:
        assert await self.usable(self.jwk(by, **changes), algorithm)

    @pytest.mark.parametrize(
        ("by", "changes", "algorithm"),
        [
            (ONE, {"use": "enc"}, "ES256"),
            (ONE, {"use": None}, "ES256"),
            (ONE, {"key_ops": ["sign"]}, "ES256"),
            (ONE, {"key_ops": "verify"}, "ES256"),
            (ONE, {"alg": "RS256"}, "ES256"),
            (ONE, {"alg": "none"}, "ES256"),
            (ONE, {"alg": "HS256"}, "ES256"),
            (ONE, {"alg": 1}, "ES256"),
            (ONE, {"kid": 1}, "ES256"),
            (ONE, {"crv": "P-384"}, "ES256"),
            (ONE, {"crv": "P-384", "alg": ...}, "ES384"),
            (ONE, {"crv": "secp256k1", "alg": ...}, "ES256"),
            (ONE, {"crv": ["P-256"]}, "ES256"),
            (ONE, {"kty": "oct", "k": "c2VjcmV0"}, "ES256"),
            (ONE, {"kty": ["EC"]}, "ES256"),
            (ONE, {"kty": ...}, "ES256"),
            (ONE, {"x": 1}, "ES256"),
            (ONE, {"x": "!"}, "ES256"),
            (ONE, {"y": ...}, "ES256"),
            (ONE, {"d": "AAAA"}, "ES256"),
            (RSA, {"alg": "RSA-OAEP"}, "RS256"),
            (RSA, {"n": ""}, "RS256"),
            (RSA, {"e": "AA"}, "RS256"),
            (RSA, {}, "PS256"),
            (RSA, {}, "ES256"),
            (TWO, {"x": "AAAA"}, "EdDSA"),
            (TWO, {"crv": "X25519"}, "EdDSA"),
        ],
    )
    async def test_not_usable(self, by: DevIssuer, changes: dict[str, Any], algorithm: str) -> None:
        assert not await self.usable(self.jwk(by, **changes), algorithm)

    @pytest.mark.parametrize("entry", [None, 1, "key", [], {}])
    async def test_no_key_at_all(self, entry: Any) -> None:
        assert not await self.usable(entry, "ES256")

    async def test_rsa_keys_under_2048_bits_do_not_count(self) -> None:
        weak = rsa.generate_private_key(65537, 1024)
        scheme = jwt.get_algorithm_by_name("RS256")
        assert not await self.usable(scheme.to_jwk(weak.public_key(), as_dict=True) | {"kid": "k"}, "RS256")

    async def test_a_larger_curve_verifies_its_own_algorithm(self) -> None:
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        jwk = jwt.get_algorithm_by_name("ES384").to_jwk(key, as_dict=True) | {"kid": "k"}
        assert await self.usable(jwk, "ES384")
        assert not await self.usable(jwk, "ES256")

    @given(st.binary(max_size=200))
    async def test_arbitrary_bytes_are_no_keys_and_no_crash(self, content: bytes) -> None:
        async with world() as w:
            w.idp.documents[URI] = httpx2.Response(200, content=content)
            await w.time.advance(30)
            assert not w.store.ready


class TestDiscovery:
    OAUTH = "https://idp.example.com/.well-known/oauth-authorization-server/realm"
    OIDC = "https://idp.example.com/realm/.well-known/openid-configuration"

    @staticmethod
    def metadata(**changes: Any) -> dict[str, Any]:
        return {"issuer": ISSUER, "jwks_uri": URI} | changes

    @asynccontextmanager
    async def discovering(self, **documents: Any) -> AsyncIterator[World]:
        async with world(ONE, rules=auth(algorithms=["ES256"]), start=False) as w:
            w.idp.documents |= {getattr(self, name): document for name, document in documents.items()}
            await w.store.start()
            yield w

    async def test_oauth_metadata_comes_first(self) -> None:
        async with self.discovering(OAUTH=self.metadata(), OIDC=self.metadata()) as w:
            assert w.idp.asked == [self.OAUTH, URI]
            assert await w.kids(ONE) == [1]

    async def test_openid_configuration_comes_second(self) -> None:
        async with self.discovering(OIDC=self.metadata()) as w:
            assert w.idp.asked == [self.OAUTH, self.OIDC, URI]
            assert await w.kids(ONE) == [1]

    @pytest.mark.parametrize(
        "changes",
        [
            {"issuer": ISSUER + "/"},
            {"issuer": "https://evil.example.com"},
            {"issuer": None},
            {"jwks_uri": None},
            {"jwks_uri": "http://idp.example.com/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "https://user@idp.example.com/keys"},
            {"jwks_uri": "http://169.254.169.254/keys"},
            {"jwks_uri": "https://"},
            {"jwks_uri": "http://[::1"},
            {"jwks_uri": "/keys"},
        ],
    )
    async def test_metadata_of_another_or_without_a_safe_address_is_not_used(self, changes: dict[str, Any]) -> None:
        async with self.discovering(OAUTH=self.metadata(**changes)) as w:
            assert w.idp.asked == [self.OAUTH, self.OIDC]
            assert not w.store.ready

    @pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9"])
    async def test_plain_http_is_for_loopback(self, host: str) -> None:
        async with self.discovering(OAUTH=self.metadata(jwks_uri=f"http://{host}/keys")) as w:
            assert w.idp.asked[-1] == f"http://{host}/keys"

    async def test_the_address_is_looked_up_again_after_a_failure(self) -> None:
        async with self.discovering(OAUTH=self.metadata()) as w:
            w.idp.documents[URI] = 404
            await w.time.advance(480)
            w.idp.documents[URI + "2"] = keys_of(TWO)
            w.idp.documents[self.OAUTH] = self.metadata(jwks_uri=URI + "2")
            await w.time.advance(30)
            assert await w.kids(ONE, TWO) == [0, 1]


class TestFile:
    @asynccontextmanager
    async def from_file(self, path: Path) -> AsyncIterator[World]:
        async with world(rules=auth(jwks_file=str(path))) as w:
            yield w

    async def test_a_static_set_needs_no_network(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(keys_of(ONE)))
        async with self.from_file(path) as w:
            assert await w.kids(ONE) == [1]
            assert w.idp.requests == []

    async def test_it_is_read_again_when_it_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(keys_of(ONE)))
        async with self.from_file(path) as w:
            path.write_text(json.dumps(keys_of(TWO)))
            os.utime(path, ns=(1, 1))
            await w.time.advance(30)
            assert await w.kids(TWO, ONE) == [1, 0]

    @pytest.mark.parametrize("text", [None, "", "{}", '{"keys":[]}', " " * (MAX_DOCUMENT + 1)])
    async def test_a_broken_or_missing_file_replaces_nothing(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(keys_of(ONE)))
        async with self.from_file(path) as w:
            path.unlink() if text is None else path.write_text(text)
            await w.time.advance(30)
            assert await w.kids(TWO, ONE) == [0, 1]

    async def test_a_file_that_stays_the_same_keeps_its_keys_beyond_stale(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(keys_of(ONE)))
        async with self.from_file(path) as w:
            before = w.store.generation
            w.time.now += 100_000
            assert await w.kids(ONE) == [1]
            assert w.store.generation == before

    async def test_a_file_that_was_away_too_long_is_read_again_though_it_is_the_same(self, tmp_path: Path) -> None:
        path, aside = tmp_path / "keys.json", tmp_path / "aside.json"
        path.write_text(json.dumps(keys_of(ONE)))
        async with self.from_file(path) as w:
            path.rename(aside)
            w.time.now += 100_000
            with pytest.raises(IssuerUnavailable):
                await w.kids(ONE)
            aside.rename(path)
            w.time.now += 30
            assert await w.kids(ONE) == [1]

    async def test_a_missing_file_appears_later(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        async with self.from_file(path) as w:
            assert not w.store.ready
            path.write_text(json.dumps(keys_of(ONE)))
            await w.time.advance(1)
            assert await w.kids(ONE) == [1]


class TestTheRequest:
    async def test_it_carries_nothing_but_the_wish_for_plain_json(self) -> None:
        async with world(ONE) as w:
            (request,) = w.idp.requests
            assert request.method == "GET"
            assert request.headers["accept-encoding"] == "identity"
            assert "cookie" not in request.headers
            assert "authorization" not in request.headers

    async def test_cookies_are_not_kept(self) -> None:
        async with world(start=False) as w:
            w.idp.documents[URI] = httpx2.Response(200, json=keys_of(ONE), headers={"Set-Cookie": "a=b; Path=/"})
            await w.store.start()
            await w.time.advance(480)
            assert [request.headers.get("cookie") for request in w.idp.requests] == [None, None]
