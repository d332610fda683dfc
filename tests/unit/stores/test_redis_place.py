"""What a URL says of where Redis is; finding it for real is in tests/integration/test_redis_sentinel.py."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, SSLConnection

from gateway.stores.redis_place import RedisPlace


def sentinels_of(url: str) -> list[dict[str, Any]]:
    found = RedisPlace(url)._sentinels
    assert found is not None
    return [sentinel.connection_pool.connection_kwargs for sentinel in found.sentinels]


def connection_of(client: Redis) -> Connection:
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, Connection)
    return connection


def test_sentinels_are_named_with_and_without_ports_by_name_and_address() -> None:
    found = sentinels_of("redis+sentinel://a,b:1,10.0.0.1:26380,[::1]:2/service")
    assert [(it["host"], it["port"]) for it in found] == [("a", 26379), ("b", 1), ("10.0.0.1", 26380), ("::1", 2)]


def test_redis_and_the_sentinels_are_shown_each_its_own_credentials() -> None:
    url = "redis+sentinel://bob:s%40cret@a:1/service/3?sentinel_username=carol&sentinel_password=o%26ther"
    (sentinel,) = sentinels_of(url)
    assert (sentinel["username"], sentinel["password"]) == ("carol", "o&ther")
    settings = RedisPlace(url).settings
    assert (settings.username, settings.password, settings.db) == ("bob", "s@cret", 3)
    connection = connection_of(RedisPlace(url).client(protocol=2))
    assert (connection.username, connection.password, connection.db) == ("bob", "s@cret", 3)


def test_sentinels_see_no_password_of_redis() -> None:
    (sentinel,) = sentinels_of("redis+sentinel://:secret@a:1/service")
    assert "secret" not in map(str, sentinel.values())


def test_tls_and_its_options_hold_for_redis_and_for_the_sentinels() -> None:
    place = RedisPlace("rediss+sentinel://a:1/service?ssl_check_hostname=false")
    assert place._sentinels is not None
    sentinel = connection_of(place._sentinels.sentinels[0])
    redis = connection_of(place.client())
    for connection in (place.settings, sentinel, redis):
        assert isinstance(connection, SSLConnection)
        assert connection.check_hostname is False


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel://a:1/",
        "redis+sentinel:///service",
        "redis+sentinel://a,,b/service",
        "redis+sentinel://a:0/service",
        "redis+sentinel://a:65536/service",
        "redis+sentinel://a:b:c/service",
        "redis+sentinel://a/service/x",
        "redis+sentinel://a/service?no_such=1",
        "rediss+sentinel://a/service?ssl_ca_certs=/no/such",
        "unix+sentinel:///a/service?no_such=1",
    ],
)
def test_a_url_that_cannot_work_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        RedisPlace(url)


async def test_an_address_is_taken_as_it_is() -> None:
    assert await RedisPlace("redis://h:7/1").address() == ("h", 7)
