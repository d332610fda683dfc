"""Where Redis is, as a URL says: at an address, or where the sentinels say that the primary is.

``redis://``, ``rediss://`` and ``unix://`` mean what they mean to redis-py. Beside them there is
``redis+sentinel://[user:password@]host[:port],host[:port]…/SERVICE[/db][?option=value…]``, and ``rediss+sentinel://``
for TLS to Redis and to the sentinels alike. Options are redis-py's, and ``sentinel_username`` and
``sentinel_password``, which the sentinels are shown; the user and password before the hosts are for Redis alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_SENTINEL = "+sentinel"
_PORT = 26379
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?")
_PLACES = {"host", "port", "connection_class"}
_LIMIT = 0.25  # seconds that one sentinel has to take the connection, and to answer
_LIMITS = {"protocol": 2, "socket_connect_timeout": _LIMIT, "socket_timeout": _LIMIT}


class NoPrimary(OSError):  # noqa: N818 - a state of the world, as a refused connection is
    """No sentinel can be asked, or none knows a primary that is up: a failover is under way, or the name is wrong."""


class RedisPlace:
    """Finds the server that takes writes, each time anew.

    ``settings`` has what to say to it; its host and port mean nothing where ``address`` has to be asked.

    Raises:
        ValueError: the URL is not one of Redis, or names a certificate file that cannot be read.
    """

    def __init__(self, url: str) -> None:
        try:
            self._service = _service(url)
            self._url = self._service.url if self._service else url
            pool = ConnectionPool.from_url(self._url)
            settings = pool.connection_class(**pool.connection_kwargs)
            if isinstance(settings, SSLConnection):
                settings.ssl_context.get()
        except (RedisError, TypeError, OSError, ValueError) as error:  # TypeError: an unknown parameter
            raise ValueError(f"the Redis URL cannot be used: {error}") from error
        assert isinstance(settings, Connection | UnixDomainSocketConnection)
        self.settings = settings
        self._sentinels = self._service and _sentinels(self._service)
        self._known: tuple[str, int] | None = None

    async def address(self) -> tuple[str, int]:
        """Host and port of the primary as it is known now; of a server that has them.

        Raises:
            NoPrimary: see there.
        """
        if self._service is None or self._sentinels is None:
            assert isinstance(self.settings, Connection)
            return self.settings.host, int(self.settings.port)
        try:
            host, port = await self._sentinels.discover_master(self._service.name)
        except RedisError:  # its text has addresses
            raise NoPrimary from None
        self._known = host, int(port)
        return self._known

    async def moved(self) -> bool:
        """Whether the primary is another one than when this or ``address`` was asked before.

        The former one may answer for seconds after that, and what it is told is lost.
        """
        if self._sentinels is None:
            return False
        former = self._known
        try:
            return await self.address() != (former or self._known)
        except NoPrimary:
            return False

    def client(self, **options: Any) -> Redis:
        """A client of redis-py with these options, whose new connections go to the primary of then."""
        if self._service is None or self._sentinels is None:
            return Redis.from_url(self._url, **options)
        client: Redis = self._sentinels.master_for(self._service.name, **self._service.primary_options, **options)
        return client

    async def aclose(self) -> None:
        """Close the connections to sentinels."""
        if self._sentinels is not None:
            await self._sentinels.aclose()


def blocking_client(url: str, **options: Any) -> Any:
    """The same as ``RedisPlace.client`` for a thread; closing it closes all.

    Raises:
        ValueError: as ``RedisPlace``.
    """
    service = RedisPlace(url)._service
    if service is None:
        return redis.Redis.from_url(url, **options)
    retry = redis.retry.Retry(NoBackoff(), 0)
    sentinels: Any = redis.Sentinel(service.addresses, sentinel_kwargs={**service.options, "retry": retry})  # type: ignore[no-untyped-call]
    return sentinels.master_for(service.name, **service.primary_options, **options)


class _Service(NamedTuple):
    addresses: list[tuple[str, int]]
    name: str
    url: str  # of a single Redis that is otherwise the same
    options: dict[str, Any]  # for sentinels

    @property
    def primary_options(self) -> dict[str, Any]:
        tls = {"ssl": True} if "ssl" in self.options else {}
        return {name: value for name, value in parse_url(self.url).items() if name not in _PLACES} | tls


def _service(url: str) -> _Service | None:
    parts = urlsplit(url)
    if not parts.scheme.endswith(_SENTINEL):
        return None
    scheme = parts.scheme.removesuffix(_SENTINEL)
    credentials, at, hosts = parts.netloc.rpartition("@")
    name, _slash, database = parts.path.removeprefix("/").partition("/")
    if not name:
        raise ValueError("it names no service after the hosts of the sentinels")
    if not re.fullmatch(r"\d{0,5}", database):
        raise ValueError("the database is not a number")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    shown = {key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    one = SplitResult(scheme, f"{credentials}{at}primary", f"/{database}", urlencode(options), "").geturl()
    tls: dict[str, Any] = {key: value for key, value in parse_url(one).items() if key.startswith("ssl_")}
    if scheme == "rediss":
        tls["ssl"] = True
    own = {key: value for key, value in shown.items() if value} | tls
    return _Service(list(_addresses(hosts)), unquote(name), one, own | _LIMITS)


def _sentinels(service: _Service) -> Sentinel:
    options = {**service.options, "retry": Retry(NoBackoff(), 0)}
    return Sentinel(service.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]


def _addresses(hosts: str) -> Iterator[tuple[str, int]]:
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None or not 0 < int(found[2] or _PORT) < 65536:
            raise ValueError("it has a sentinel that is not host:port")
        yield found[1].strip("[]"), int(found[2] or _PORT)
