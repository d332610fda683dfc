"""The client's address is believed of trusted proxies alone, and only as far as they wrote it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.proxies import TrustedProxies

OURS = TrustedProxies([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
PROXY, CLIENT = "10.0.0.1", "203.0.113.9"


def client(forwarded_for: str | None = None, *, peer: str = PROXY, standard: str | None = None) -> str:
    headers = [] if forwarded_for is None else [(b"x-forwarded-for", forwarded_for.encode())]
    headers += [] if standard is None else [(b"forwarded", standard.encode())]
    return OURS.client(peer, headers)


def test_where_nobody_is_trusted_whoever_connects_is_the_client() -> None:
    assert TrustedProxies([]).client(PROXY, [(b"x-forwarded-for", CLIENT.encode())]) == PROXY


def test_whoever_connects_and_is_no_trusted_proxy_is_the_client() -> None:
    assert client(CLIENT, peer="198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (CLIENT, CLIENT),
        (f"1.2.3.4, {CLIENT}", CLIENT),
        (f"1.2.3.4, {CLIENT}, 10.9.9.9", CLIENT),
        (f"{CLIENT}:51234", CLIENT),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("fd00::5", "fd00::5"),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, unknown, 10.7.7.7", "10.7.7.7"),
        (f"{CLIENT}, ", PROXY),
        ("", PROXY),
        ("<script>", PROXY),
        ("999.1.1.1", PROXY),
    ],
)
def test_the_rightmost_address_that_is_no_proxy_of_ours_is_the_client(value: str, found: str) -> None:
    assert client(value) == found


def test_several_headers_are_one_list() -> None:
    headers = [(b"x-forwarded-for", b"1.2.3.4"), (b"host", b"x"), (b"x-forwarded-for", CLIENT.encode())]
    assert OURS.client(PROXY, headers) == CLIENT


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (f"for={CLIENT};proto=https", CLIENT),
        (f'proto=https; For="{CLIENT}:4711"', CLIENT),
        ('for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        (f"for=1.2.3.4, for={CLIENT}, for=10.0.0.7", CLIENT),
        (f"for={CLIENT}, for=_hidden", PROXY),
        ("proto=https", PROXY),
    ],
)
def test_forwarded_is_read_where_there_is_no_x_forwarded_for(value: str, found: str) -> None:
    assert client(standard=value) == found


def test_a_client_cannot_add_forwarded_beside_what_the_proxy_wrote() -> None:
    assert client(CLIENT, standard="for=1.2.3.4") == CLIENT


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_a_client_sends_the_answer_is_an_address(before: str, standard: str) -> None:
    headers = [(b"x-forwarded-for", before.encode()), (b"forwarded", standard.encode())]
    ipaddress.ip_address(OURS.client(PROXY, headers))
    written_by_us = [(b"x-forwarded-for", before.encode() + b", " + CLIENT.encode())]
    assert OURS.client(PROXY, written_by_us) == CLIENT


@pytest.mark.parametrize("filler", ["1.2.3.4, ", "9", ","])
def test_however_much_a_client_sends_only_what_proxies_wrote_is_read_and_kept(filler: str) -> None:
    assert client(filler * 10_000 + f", {CLIENT}, 10.9.9.9") == CLIENT
    kept = [OURS._resolved.cache_info().currsize]
    for length in range(3):
        assert client("9" * (20_000 + length) + f", {CLIENT}") == CLIENT
        kept.append(OURS._resolved.cache_info().currsize)
    assert kept[3] == kept[1]
