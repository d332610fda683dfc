"""Starts the servers of this folder for tests, and asks about processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.models import BackendReply, BackendRequest, Principal

HERE = Path(__file__).parent
ALICE = Principal(issuer="https://idp", subject="alice")
BOB = Principal(issuer="https://idp", subject="bob")


def raw_stdio(*options: str) -> tuple[str, ...]:
    return (sys.executable, "-I", str(HERE / "raw_stdio.py"), *options)


def asking_stdio(*options: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "asking.py"), "--stdio", *options)


class HttpServer:
    """A server of this folder as a process, on the same port each time it is started."""

    def __init__(self, *options: str, program: str = "sdk_http.py") -> None:
        self.port = "0"
        self.program = program
        self.options = options
        self.start(*options)

    def start(self, *options: str) -> None:
        command = [sys.executable, str(HERE / self.program), "--port", self.port, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        assert self.port, "the server did not start"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{'sse' if '--sse' in self.options else 'mcp'}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self, *options: str) -> None:
        self.kill()
        self.start(*(options or self.options))


@contextmanager
def http_server(*options: str, program: str = "sdk_http.py") -> Iterator[HttpServer]:
    server = HttpServer(*options, program=program)
    try:
        yield server
    finally:
        server.kill()


def call(name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> BackendRequest:
    options = {"principal": ALICE, "timeout": 10.0, "max_timeout": 20.0, **options}
    return BackendRequest("tools/call", {"name": name, "arguments": arguments or {}}, name=name, **options)


def text(reply: BackendReply) -> str:
    assert reply.result is not None, reply.error
    content = reply.result["content"]
    if isinstance(content, msgspec.Raw):
        content = msgspec.json.decode(content)
    said: str = content[0]["text"]
    return said


def ignore(method: str, params: Mapping[str, Any]) -> None:
    return None


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is a value, not an event
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children() -> set[int]:
    """The processes that this one has started and not reaped, zombies included."""
    own = set()
    for task in Path("/proc/self/task").iterdir():
        own |= {int(pid) for pid in (task / "children").read_text().split()}
    return own


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
