"""A modern MCP server over HTTP, by hand: it answers exactly the bytes a test wants and keeps those it was sent."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODERN = "2026-07-28"
TOKEN_KEY = b'"progressToken":'


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    @property
    def method(self) -> str:
        method: str = self.message["method"]
        return method


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class State:
    seen: list[Seen] = field(default_factory=list)
    running: int = 0
    hung_up: int = 0
    """Clients that closed the connection of a call that ran."""
    release: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b'{"content":[{"type":"text","text":"x"}],"resultType":"complete"}'
    """What ``verbatim`` returns."""
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    listing: bytes | None = None
    """Sent to ``tools/list`` in place of a list."""
    may_tell: threading.Event = field(default_factory=_set)
    """``server/discover`` and ``tools/list`` wait for it, and tell what is so by then."""
    held: int = 0
    """Those that had to wait."""
    first: bytes = b""
    """The JSON of one more definition, before those of ``tools``."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def calls(self, tool: str) -> list[Seen]:
        return [it for it in self.seen if it.method == "tools/call" and it.message["params"]["name"] == tool]


def _open_schema() -> dict[str, Any]:
    return {"type": "object"}


def _region_schema() -> dict[str, Any]:
    properties = {"region": {"type": "string", "x-mcp-header": "Region"}, "level": {"type": "integer"}}
    return {"type": "object", "properties": properties, "required": ["region"]}


class _Handler(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        self.server.connections.add(self.connection)
        try:
            while self._one():
                pass
        except (ConnectionError, ValueError, OSError):
            return
        finally:
            self.server.connections.discard(self.connection)

    def _one(self) -> bool:
        line = self.rfile.readline()
        if not line:
            return False
        headers: dict[str, str] = {}
        while line := self.rfile.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        seen = Seen(headers, body)
        with self.state.lock:
            self.state.seen.append(seen)
        self._answer(seen)
        return True

    @property
    def state(self) -> State:
        return self.server.state

    def _answer(self, seen: Seen) -> None:
        message = seen.message
        if message["method"] in {"server/discover", "tools/list"} and not self.state.may_tell.is_set():
            with self.state.lock:
                self.state.held += 1
            self.state.may_tell.wait(30)
        if message["method"] == "server/discover":
            result = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "resultType": "complete"}
            self.result(message, json.dumps(result).encode())
        elif message["method"] == "tools/list":
            self._list(message)
        elif message["method"] == "tools/call":
            with self.state.lock:
                self.state.running += 1
            try:
                _TOOLS.get(message["params"]["name"], _verbatim)(self, seen)
            finally:
                with self.state.lock:
                    self.state.running -= 1
        else:
            self.json(b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32601,"message":"no"}}' % message["id"], status=404)

    def _list(self, message: dict[str, Any]) -> None:
        if self.state.listing is not None:
            self.json(self.state.listing)
            return
        tools = [{"name": name, **definition} for name, definition in self.state.tools.items()]
        listed = [self.state.first] * bool(self.state.first) + [json.dumps(tool).encode() for tool in tools]
        self.result(message, b'{"resultType":"complete","tools":[%b]}' % b",".join(listed))

    def result(self, message: dict[str, Any], result: bytes) -> None:
        self.json(b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (message["id"], result))

    def json(self, body: bytes, status: int = 200) -> None:
        self.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nSet-Cookie: backend=secret\r\n" % status
            + b"X-Backend: internal\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_for_hang_up(self) -> None:
        while self.connection.recv(4096):
            pass
        with self.state.lock:
            self.state.hung_up += 1

    def progress(self, seen: Seen, params: str) -> None:
        token = seen.message["params"]["_meta"]["progressToken"]
        head = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%d,' % token
        self.write(b"data: " + head + params.encode() + b"}}\n\n")

    def open_stream(self) -> None:
        self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")

    def finish_stream(self, seen: Seen) -> None:
        self.write(b'data: {"jsonrpc":"2.0","id":%d,"result":%s}\n\n' % (seen.message["id"], self.state.answer))
        self.connection.shutdown(socket.SHUT_RDWR)


def _verbatim(handler: _Handler, seen: Seen) -> None:
    handler.result(seen.message, handler.state.answer)


def _hang(handler: _Handler, _seen: Seen) -> None:
    handler.wait_for_hang_up()


def _wait(handler: _Handler, seen: Seen) -> None:
    handler.state.release.wait(30)
    handler.result(seen.message, handler.state.answer)


def _steps(handler: _Handler, seen: Seen) -> None:
    handler.open_stream()
    if "progressToken" in seen.message["params"]["_meta"]:
        for step in (1, 2, 3):
            handler.progress(seen, f'"progress":{step},"total":3,"message":"step {step}"')
    handler.finish_stream(seen)


def _held_steps(handler: _Handler, seen: Seen) -> None:
    """One step, then it waits to be released."""
    handler.open_stream()
    handler.progress(seen, '"progress":1')
    handler.state.release.wait(30)
    handler.finish_stream(seen)


def _foreign_steps(handler: _Handler, seen: Seen) -> None:
    """Progress under a token that is not this call's."""
    handler.open_stream()
    handler.write(
        b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"x","progress":1}}\n\n'
    )
    handler.finish_stream(seen)


def _said(body: bytes) -> Callable[[_Handler, Seen], None]:
    def say(handler: _Handler, _seen: Seen) -> None:
        handler.json(body)

    return say


def _cut(handler: _Handler, _seen: Seen) -> None:
    handler.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"jsonrpc"')
    handler.connection.shutdown(socket.SHUT_RDWR)


def _unauthorized(handler: _Handler, _seen: Seen) -> None:
    handler.json(b'{"error":"invalid_token"}', status=401)


def _error(handler: _Handler, seen: Seen) -> None:
    error = {"code": -32042, "message": "no such é", "data": {"a": None, "n": 1.5, "big": 2**60}}
    handler.json(json.dumps({"jsonrpc": "2.0", "id": seen.message["id"], "error": error}).encode())


_TOOLS: dict[str, Callable[[_Handler, Seen], None]] = {
    "hang": _hang,
    "wait": _wait,
    "steps": _steps,
    "error": _error,
    "held_steps": _held_steps,
    "foreign_steps": _foreign_steps,
    "not_json": _said(b"<html>it works</html>"),
    "not_utf8": _said(b'{"jsonrpc":"2.0","id":1,"result":{"content":"\xff"}}'),
    "another_id": _said(b'{"jsonrpc":"2.0","id":-1,"result":{"content":[]}}'),
    "array": _said(b"[]"),
    "nothing": _said(b""),
    "cut": _cut,
    "unauthorized": _unauthorized,
}
GARBAGE = ("not_json", "not_utf8", "another_id", "array", "nothing", "cut", "unauthorized")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, state: State) -> None:
        self.state = state
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)


class RawBackend:
    """The server on a thread; ``state`` is what it does and saw. ``stop`` and ``start`` are its death and return."""

    def __init__(self) -> None:
        self.state = State(tools={name: {"inputSchema": _open_schema()} for name in ("verbatim", *_TOOLS)})
        self.state.tools["regional"] = {"inputSchema": _region_schema()}
        self.port = 0
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        self._server = _Server(self.port, self.state)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and break those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
