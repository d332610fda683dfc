"""Where a request came from, where proxies stand before us that say so.

Whoever connects is believed only if it is a trusted proxy, and then only the part of the list that trusted proxies
wrote: from the right, the first address that is not one of theirs is the client's. What stands left of it was sent by
the client and may be anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_READ = 1024
"""Bytes of a list that are read, and remembered."""


class TrustedProxies:
    """The networks whose word is taken. ``X-Forwarded-For`` is read; where there is none, ``Forwarded`` (RFC 7239)."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._resolved = lru_cache(maxsize=4096)(self._resolve)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client's address, for a request that ``peer`` sent."""
        if not self._networks:
            return peer
        headers = list(headers)
        values = [value for name, value in headers if name == b"x-forwarded-for"]
        if values:
            return self._resolved(peer, _end_of(values), False)  # noqa: FBT003 - cached by position
        values = [value for name, value in headers if name == b"forwarded"]
        return self._resolved(peer, _end_of(values), True) if values else peer  # noqa: FBT003 - the same

    def _resolve(self, peer: str, value: bytes, standard: bool) -> str:
        address = _address(peer)
        if address is None or not self._trusts(address):
            return peer
        found = peer
        for entry in reversed(value.decode("latin-1").split(",")):
            address = _address(_node(_for(entry) if standard else entry))
            if address is None:  # obfuscated, unknown, or made up: nobody further left is to be believed
                return found
            found = str(address)
            if not self._trusts(address):
                return found
        return found

    def _trusts(self, address: _Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)


def _end_of(values: Sequence[bytes]) -> bytes:
    """The whole entries at the end of a list, which proxies wrote; before them a client may send any number."""
    value = b",".join(values)
    return value if len(value) <= _READ else value[-_READ:].partition(b",")[2]


def _for(element: str) -> str:
    """The ``for`` of an element of ``Forwarded``; empty where it has none."""
    for pair in element.split(";"):
        name, _equals, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _node(text: str) -> str:
    """An address without port and brackets."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
