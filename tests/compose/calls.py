"""A client of the running stack: tokens, calls with retries, and what Prometheus saw."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from machine import left

REVISION = "2026-07-28"
STATUS = {"service": "checkout", "environment": "dev"}


def post(token: str, tool: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One ``tools/call`` over a connection of its own: HTTP status and JSON-RPC answer."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "compose-test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
    try:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        connection.request("POST", "/mcp", body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    return response.status, json.loads(lines[-1] if lines else text)


def outcome(token: str, tool: str, arguments: dict[str, Any]) -> str:
    """``ok``, or the code of the refusal."""
    status, answer = post(token, tool, arguments)
    if status != 200 or "error" in answer:
        raise AssertionError(f"{tool}: HTTP {status}: {answer.get('error')}")
    result = answer["result"]
    return json.loads(result["content"][0]["text"])["code"] if result.get("isError") else "ok"


def until(condition: Callable[[], object], what: str, within: float = 60.0) -> None:
    """Poll until it holds.

    Raises:
        AssertionError: it does not hold in time.
    """
    end = time.monotonic() + min(within, left())
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"within {within:g} s, not true: {what}")
        time.sleep(0.2)


def prometheus(expression: str) -> dict[str, float]:
    """Value by instance."""
    connection = http.client.HTTPConnection("127.0.0.1", 9090, timeout=5)
    try:
        connection.request("GET", "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        answer = json.loads(connection.getresponse().read())
    except OSError:
        return {}
    finally:
        connection.close()
    return {each["metric"].get("instance", ""): float(each["value"][1]) for each in answer["data"]["result"]}


@dataclass
class Load:
    """Calls of a read-only tool from several threads. A call that fails is tried again, as a client would."""

    token: str
    threads: int = 4
    tries: int = 8
    answered: int = 0
    retried: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._running = [threading.Thread(target=self._work, daemon=True) for _ in range(self.threads)]

    def start(self) -> None:
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        self._end.set()
        for thread in self._running:
            thread.join(timeout=30)

    def _work(self) -> None:
        while not self._end.is_set():
            self._one()
            self._end.wait(0.04)  # below the limit of 600 calls a minute and their burst

    def _one(self) -> None:
        problem = ""
        for attempt in range(self.tries):
            try:
                problem = outcome(self.token, "deploy__get_deploy_status", STATUS)
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
            if problem == "ok":
                with self._lock:
                    self.answered += 1
                    self.retried += attempt > 0
                return
            self._end.wait(0.1 * (attempt + 1))
        with self._lock:
            self.failed[problem] += 1
