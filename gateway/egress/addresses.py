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
_TRANSLATED = tuple(ip_network(network) for network in ("::/96", "64:ff9b::/96"))
"""IPv4-compatible addresses (RFC 4291), and the prefix of NAT64 (RFC 6052)."""


def may_reach(address: str, reach: Reach) -> bool:
    """Whether a numeric address may be connected to."""
    if reach == "anywhere":
        return True
    found = _with_inner(ip_address(address.partition("%")[0]))
    if reach == "public":
        return all(one.is_global and not one.is_multicast for one in found) and not any(map(_is_sensitive, found))
    return not any(map(_is_sensitive, found))


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
    return (address,)
