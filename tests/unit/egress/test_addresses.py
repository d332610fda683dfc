from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.egress.addresses import may_reach

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fe80::a9fe:a9fe%eth0",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "::ffff:100.100.100.200",
    "::ffff:0:169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::",
]
PRIVATE = ["10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "::1", "fd12::1", "100.64.0.1", "::ffff:10.0.0.1"]
PRIVATE += ["fec0::1", "::ffff:0:10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:1:a00:0:100::"]
PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"]


@pytest.mark.parametrize("address", METADATA)
def test_where_clouds_keep_credentials_is_reached_only_where_a_route_says_so(address: str) -> None:
    assert not may_reach(address, "configured")
    assert not may_reach(address, "public")
    assert may_reach(address, "anywhere")


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_for_what_the_operator_named(address: str) -> None:
    assert may_reach(address, "configured")
    assert not may_reach(address, "public")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_for_everything(address: str) -> None:
    assert may_reach(address, "configured")
    assert may_reach(address, "public")


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1", "3fff::1", "5f00::1", "192.88.99.1"],
)
def test_what_is_no_host_of_the_internet_is_not_public(address: str) -> None:
    assert not may_reach(address, "public")


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}", "::ffff:0:{}", "64:ff9b:1::{}"]))
def test_no_spelling_in_ipv6_leads_where_the_ipv4_address_does_not(inner: IPv4Address, spelling: str) -> None:
    outer = spelling.format(inner)
    if int(IPv6Address(outer)) > 1:
        assert may_reach(outer, "configured") <= may_reach(str(inner), "configured")
        assert may_reach(outer, "public") <= may_reach(str(inner), "public")
