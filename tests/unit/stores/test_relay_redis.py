"""What needs no Redis; the rest is in tests/integration/test_relay.py."""

import pytest

from gateway.stores.relay_redis import RedisRelay


def test_a_url_that_is_none_of_redis_is_refused() -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        RedisRelay("http://localhost", [b"k" * 32])
