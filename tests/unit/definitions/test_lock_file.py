"""The lock on disk: absent, whole, or an error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.definitions.lock import NO_LOCK, Lock, pin
from gateway.definitions.lock_file import lock_path, read_lock, write_lock
from gateway.errors import ConfigError

LOCK = Lock({"deploy": {"tool": {"a": pin({"name": "a", "inputSchema": {}})}}})


def test_it_is_beside_the_routes() -> None:
    assert lock_path(Path("config/routes.yaml")) == Path("config/tools.lock")


def test_what_is_not_there_is_no_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "tools.lock") is NO_LOCK
    assert NO_LOCK.missing


def test_it_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    write_lock(path, NO_LOCK)
    write_lock(path, LOCK)
    assert read_lock(path) == LOCK
    assert [one.name for one in tmp_path.iterdir()] == ["tools.lock"]


@pytest.mark.parametrize(
    ("content", "what"), [(b"\xff", "UTF-8"), (b"{", "not JSON"), (b" " * ((16 << 20) + 1), "16MiB")]
)
def test_what_cannot_be_used_is_an_error_of_the_configuration(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "tools.lock"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=what) as caught:
        read_lock(path)
    assert caught.value.problems[0].file == str(path)


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_lock(tmp_path)
