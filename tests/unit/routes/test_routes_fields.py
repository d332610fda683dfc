from __future__ import annotations

import pytest

from gateway.routes.fields import is_loopback


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "example.com", "10.0.0.1", "0.0.0.0", "::", "localhost.example.com", "127.0.0.1.a"]
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
