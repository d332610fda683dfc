"""Requests whose connection a test holds in its hand: to read streams, to hang up, to send exact bytes."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from .harness import MODERN, Client, Gateway

ENVELOPE = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


class Open:
    """An HTTP exchange under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), 30)
        self.received = b""
        self.connection.sendall(request)

    def until(self, part: bytes, seconds: float = 20.0) -> bytes:
        """Everything received so far, once ``part`` is in it."""
        deadline = time.monotonic() + seconds
        while part not in self.received:
            self.connection.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                chunk = self.connection.recv(65536)
            except TimeoutError:
                raise AssertionError(f"no {part!r} within {seconds} s: {self.received!r}") from None
            assert chunk, f"the connection ended without {part!r}: {self.received!r}"
            self.received += chunk
        return self.received

    def arrived(self) -> bytes:
        """What is there already, without waiting for more."""
        self.connection.setblocking(False)
        try:
            while chunk := self.connection.recv(65536):
                self.received += chunk
        except BlockingIOError:
            pass
        finally:
            self.connection.settimeout(30)
        return self.received

    def rest(self) -> bytes:
        """Everything, once the other side has closed."""
        while chunk := self.connection.recv(65536):
            self.received += chunk
        return self.received

    def answer(self) -> Any:
        """The one JSON-RPC answer of a request that asked to close."""
        received = self.rest()
        head, _, body = received.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], received
        return json.loads(body)

    def events(self) -> list[Any]:
        """The messages of a stream that has ended."""
        return [json.loads(data) for data in re.findall(rb"^data: (.*)$", self.rest(), re.MULTILINE)]

    def hang_up(self) -> None:
        self.connection.close()


@contextmanager
def opened(client: Client, body: Any, method: str = "POST", **headers: str) -> Iterator[Open]:
    """Send a request and hold its connection; the server is asked to close it after the answer."""
    url = httpx2.URL(client.url)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = client.headers(**{name.replace("_", "-"): value for name, value in headers.items()})
    fields |= {"Host": "localhost", "Content-Length": str(len(content)), "Connection": "close"}
    if client.session is not None:
        fields["Mcp-Session-Id"] = client.session
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    assert url.port is not None
    exchange = Open(url.port, f"{method} {url.path} HTTP/1.1\r\n{lines}\r\n".encode() + content)
    try:
        yield exchange
    finally:
        exchange.hang_up()


def modern_call(name: str, arguments: Any = None, *, token: Any = None, request_id: Any = 7, **meta: Any) -> bytes:
    """The body of a modern ``tools/call``."""
    envelope = {**ENVELOPE, **meta} | ({} if token is None else {"progressToken": token})
    params = {"name": name, "arguments": arguments or {}, "_meta": envelope}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}).encode()


def routing(name: str) -> dict[str, str]:
    """The headers that mirror such a body."""
    return {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": name}


def calling(client: Client, name: str, arguments: Any = None, **options: Any) -> Any:
    """A modern call whose connection the test holds."""
    return opened(client, modern_call(name, arguments, **options), **routing(name))


def refusal(reply: httpx2.Response) -> Any:
    """What an agent reads of a refusal, after checking that it is said as a tool result."""
    assert reply.status_code == 200, reply.text
    result = reply.json()["result"]
    assert result["isError"] is True, result
    said = json.loads(result["content"][0]["text"])
    assert "structuredContent" not in result
    assert result["_meta"]["io.mcp-gateway/refusal"] == said
    return said


def text_of(reply: httpx2.Response) -> str:
    """The text of a tool's answer."""
    result = reply.json()["result"]
    assert not result.get("isError"), result
    said: str = result["content"][0]["text"]
    return said


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of a metric over all its series that have these labels."""
    return total(gateway.get("/metrics").text, name, **labels)


def total(exposition: str, name: str, **labels: str) -> float:
    found = 0.0
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        own, _, given = series.partition("{")
        if own == name and all(f'{key}="{wanted}"' in given for key, wanted in labels.items()):
            found += float(value)
    return found


def descendants(pid: int) -> set[int]:
    """Every living process below this one; zombies count."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        found |= frontier
    return found


def command_of(pid: int) -> str:
    """The command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def environ_of(pid: int) -> str:
    """What a process was started with, each ending in NUL; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def at_once(work: Sequence[Any]) -> list[Any]:
    """Run these callables in threads that start together; their results in order."""
    results: list[Any] = [None] * len(work)
    barrier = threading.Barrier(len(work))

    def run(index: int) -> None:
        barrier.wait(30)
        try:
            results[index] = work[index]()
        except httpx2.TransportError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
