"""A small MCP server over stdio, by hand, so that it can misbehave and send what no SDK would.

``--on-discover``: answer with an error (default), ``die``, or ``silence``. ``--count FILE`` gets a line at each start.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--on-discover", default="error", choices=["error", "die", "silence"])
arguments.add_argument("--count")
arguments.add_argument("--noise", action="store_true")
arguments.add_argument("--tools", type=int, default=3)
arguments.add_argument("--fail-start", action="store_true")
options = arguments.parse_args()
lock = threading.Lock()
cancelled = []
answers = []


def send(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def raw(data):
    with lock:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def text(value):
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def progress(request, value):
    token = request["params"]["_meta"]["progressToken"]
    send({"method": "notifications/progress", "params": {"progressToken": token, "progress": value, "vendor": None}})


def crash(request):
    os._exit(3)


def hang(request):
    threading.Event().wait()


def slow_with_progress(request):
    for step in range(request["params"]["arguments"]["steps"]):
        time.sleep(request["params"]["arguments"]["pause"])
        progress(request, step)
    return text("done")


def garbage(request):
    raw(b"\xff\xfe\x00 not utf-8\n{broken json\n\n[]\n")
    return text("still here")


def endless(request):
    while True:
        raw(b"x" * 65536)


def fork(request):
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    return text(str(child.pid))


def complain(request):
    sys.stderr.write("complaint " * 200_000)
    sys.stderr.flush()
    return text("complained")


def ask_client(request):
    send({"id": "s1", "method": request["params"]["arguments"]["method"], "params": {}})
    while not answers:
        time.sleep(0.01)
    return text(answers.pop())


def change(request):
    options.tools += 1
    send({"method": "notifications/tools/list_changed"})
    return text("changed")


def log(request):
    send({"method": "notifications/message", "params": {"level": "info", "data": request["params"]["arguments"]}})
    return text("logged")


def vendor(request):
    return {**text("x"), "structuredContent": None, "vendor": {"future": [1, None]}, "_meta": {"null": None}}


TOOLS = {
    "echo": lambda request: text(request["params"]["arguments"]),
    "meta": lambda request: text(request["params"].get("_meta")),
    "pid": lambda request: text(str(os.getpid())),
    "large": lambda request: text("y" * request["params"]["arguments"]["size"]),
    "environment": lambda request: text(dict(os.environ)),
    "cancelled": lambda request: text(cancelled),
    **{tool.__name__: tool for tool in (crash, hang, slow_with_progress, garbage, endless, fork, complain)},
    **{tool.__name__: tool for tool in (ask_client, change, log, vendor)},
}


def page(request):
    start = int((request.get("params") or {}).get("cursor", "0"))
    tools = [{"name": f"tool{n}", "inputSchema": {"type": "object"}, "future": None} for n in range(options.tools)]
    result = {"tools": tools[start : start + 2]}
    if start + 2 < len(tools):
        result["nextCursor"] = str(start + 2)
    return result


def handle(request):
    method = request["method"]
    if method == "server/discover":
        if options.on_discover == "die":
            os._exit(1)
        if options.on_discover == "silence":
            return
    if method == "initialize":
        send(
            {
                "id": request["id"],
                "result": {
                    "protocolVersion": request["params"]["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "raw", "version": "1", "future": True},
                },
            }
        )
    elif method == "tools/list":
        send({"id": request["id"], "result": page(request)})
    elif method == "tools/call":
        tool = TOOLS.get(request["params"]["name"])
        if tool is None:
            send({"id": request["id"], "error": {"code": -32602, "message": "Unknown tool", "data": {"a": None}}})
        else:
            send({"id": request["id"], "result": tool(request)})
    else:
        send({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})


if options.count:
    with open(options.count, "a") as file:
        file.write(f"{os.getpid()}\n")
if options.fail_start:
    sys.exit(7)
if options.noise:
    raw(b"Welcome to the raw server!\n")
for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        answers.append(message)
    elif "id" in message:
        threading.Thread(target=handle, args=(message,), daemon=True).start()
    elif message["method"] == "notifications/cancelled":
        cancelled.append(message["params"]["requestId"])
