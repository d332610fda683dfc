"""Which addresses the gateway connects to. Pure.

An address that holds another (IPv4 in IPv6, in all its spellings) is judged by both: a translator on the way would
lead to the inner one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

Reach = Literal["configured", "anywhere", "public"]
"""*configured*: what the operator named, private networks and loopback included, link-local addresses and those where
clouds keep the credentials of their machines not. *anywhere*: these too. *public*: what somebody else named."""

_SENSITIVE = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local (RFC 3927): metadata of most clouds
        "fe80::/10",  # link-local (RFC 4291)
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle Cloud
        "fd00:ec2::/32",  # AWS
        "fd20:ce::/32",  # Google Cloud
    )
)
_TRANSLATED = tuple(ip_network(network) for network in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
"""IPv4-compatible addresses (RFC 4291), IPv4-translated ones (RFC 2765), and the prefix of NAT64 (RFC 6052)."""

_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")
"""RFC 8215. Where in it the IPv4 address is depends on the network (RFC 6052 section 2.2): at its end, mostly."""

_LOCAL = tuple(
    ip_network(network)
    for network in (
        "fec0::/10",  # site-local (RFC 3879): private, in networks that still have it
        "5f00::/16",  # segment routing (RFC 9602)
        "3fff::/20",  # documentation (RFC 9637)
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
    )
)
"""What ``ipaddress`` takes for public and is not."""


def may_reach(address: str, reach: Reach) -> bool:
    """Whether a numeric address may be connected to."""
    if reach == "anywhere":
        return True
    found = _with_inner(ip_address(address.partition("%")[0]))
    if reach == "public":
        return all(map(_is_public, found)) and not any(map(_is_sensitive, found))
    return not any(map(_is_sensitive, found))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in network for network in _LOCAL)


def _is_sensitive(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in _SENSITIVE)


def _with_inner(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """The address that counts, and the IPv4 address in it; a mapped one is nothing but its IPv4 address."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, address.teredo[1])
    if int(address) > 1 and any(address in network for network in _TRANSLATED):
        return (address, IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _LOCAL_NAT64:
        bits = int(address)
        return (address, IPv4Address(bits & 0xFFFFFFFF), IPv4Address((bits >> 48 & 0xFFFF0000) | (bits >> 40 & 0xFFFF)))
    return (address,)
