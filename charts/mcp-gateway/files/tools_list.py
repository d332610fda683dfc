"""List the tools as an agent would: TOKEN at URL; TOOL, when set, must be among them."""

import json
import os
import sys
import urllib.error
import urllib.request

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "helm-test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def post(token):
    """The answer to ``tools/list``, which may come as JSON or as an event stream."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": "tools/list",
    }
    if token:
        headers["Authorization"] = "Bearer " + token
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    request = urllib.request.Request(os.environ["URL"], json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
        if answer.headers.get_content_type() == "text/event-stream":
            text = next(line[5:] for line in text.splitlines() if line.startswith("data:") and '"id"' in line)
        return json.loads(text)


try:
    post("")
    sys.exit("FAIL: a request without a token was not refused")
except urllib.error.HTTPError as refusal:
    if refusal.code != 401:
        sys.exit(f"FAIL: a request without a token got {refusal.code}, not 401")
try:
    answer = post(os.environ["TOKEN"].strip())
except urllib.error.HTTPError as refusal:
    sys.exit(f"FAIL: {refusal.code} {refusal.read(500).decode(errors='replace')}")
if "result" not in answer:
    sys.exit(f"FAIL: {answer.get('error')}")
names = sorted(tool["name"] for tool in answer["result"]["tools"])
if os.environ.get("TOOL") and os.environ["TOOL"] not in names:
    sys.exit(f"FAIL: {os.environ['TOOL']} is not among {names}")
sys.stdout.write(f"ok: {len(names)} tools: {' '.join(names)}\n")
