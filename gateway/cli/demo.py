"""``demo``: everything on, on this machine, in one command; and nothing left when it ends."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.panel import Panel

from gateway.cli.output import UNUSABLE, fail, out
from gateway.cli.serve import loader, read_settings, run
from gateway.cli.tokens import DEMO_AUDIT, DEMO_STATE, DemoIssuer
from gateway.devtokens import DevIssuer
from gateway.http.runner import bind
from gateway.routes import Routes
from gateway.telemetry.logs import configure

if TYPE_CHECKING:
    from gateway.app import Gateway

log = logging.getLogger(__name__)

_EXAMPLE = "examples.deploy_tools"
_LIFETIME = 8 * 3600


def demo(
    port: Annotated[int, typer.Option(help="Port of the gateway on 127.0.0.1; 0 takes a free one.")] = 8080,
    state: Annotated[Path, typer.Option(help="Folder for the audit log and the throw-away key.")] = DEMO_STATE,
) -> None:
    """Start the gateway with three real MCP servers, a throw-away issuer and state in the process."""
    port = _claim(port)
    state.mkdir(parents=True, exist_ok=True)
    audit = state / DEMO_AUDIT.name
    settings = read_settings(
        {
            "GATEWAY_CONFIG": os.environ.get("GATEWAY_CONFIG", "config/routes.yaml"),
            "GATEWAY_PORT": str(port),
            "GATEWAY_AUDIT": f"file:{audit}",
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
            "GATEWAY_DRAIN_SECONDS": "5",
        }
    )
    configure("WARNING", human=True)
    audit.unlink(missing_ok=True)
    audit.with_name(audit.name + ".head").unlink(missing_ok=True)
    with _deploy_tools() as deploy_url, _throw_away_issuer(state, port, deploy_url) as (about, issuer):
        load = loader(settings, os.environ)

        def read() -> Routes:
            return about.within(load())

        token = issuer.mint("demo-agent", _all_scopes(read()), about.audience, "demo", _LIFETIME)
        code = run(settings, read, started=lambda gateway, _port: _announce(gateway, about.url, token, audit))
    raise SystemExit(code)


def _claim(port: int) -> int:
    """The port to listen on. Refused here when it is taken, or a demo that runs there would lose its state."""
    try:
        with bind("127.0.0.1", port) as listener:
            claimed: int = listener.getsockname()[1]
            return claimed
    except OSError as error:
        fail(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", UNUSABLE)


@contextmanager
def _throw_away_issuer(state: Path, port: int, deploy_url: str) -> Iterator[tuple[DemoIssuer, DevIssuer]]:
    url = f"http://127.0.0.1:{port}/mcp"
    key = state / "issuer.pem"
    about = DemoIssuer(f"http://127.0.0.1:{port}/demo-issuer", url, url, str(key), deploy_url)
    key.unlink(missing_ok=True)
    issuer = DevIssuer.create(about.issuer, key)
    about.jwks.write_text(json.dumps(issuer.jwks()))
    about.save(state)
    try:
        yield about, issuer
    finally:
        for name in ("issuer.json", "issuer.pem", "jwks.json"):
            (state / name).unlink(missing_ok=True)


@contextmanager
def _deploy_tools() -> Iterator[str]:
    """Our example server as a child, on a free port; it ends with the demo."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "examples" / "deploy_tools").is_dir():
        fail("the demo needs a checkout of the repository: its example server is in examples/", UNUSABLE)
    port = _claim(0)
    child = subprocess.Popen(  # noqa: S603 - our own example, by our own interpreter
        [sys.executable, "-m", _EXAMPLE, "--transport", "http", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_listening(child, port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_until_listening(child: subprocess.Popen[bytes], port: int, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    fail("the example server did not start; run it by hand: python -m " + _EXAMPLE)


def _all_scopes(routes: Routes) -> list[str]:
    return sorted(routes.scopes())


def _announce(gateway: Gateway, url: str, token: str, audit: Path) -> None:
    """Wait beside the gateway until its backends were tried, then say how to connect."""

    async def say() -> None:
        await gateway.tried.wait()
        _print_welcome(gateway, url, token, audit)

    gateway.spawn(say())


def _print_welcome(gateway: Gateway, url: str, token: str, audit: Path) -> None:
    client = {"mcpServers": {"gateway": {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}}}
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "deploy__list_services", "arguments": {}, "_meta": meta},
    }
    out.print(Panel.fit(f"[bold]mcp-gateway[/] is running: [bold cyan]{url}[/]"))
    for name, backend in gateway.backends.items():
        count = len(backend.listing.tools) if backend.listing else 0
        state = f"[green]{count} tools[/]" if backend.up else "[red]not reached; it will be tried again[/]"
        out.print(f"  {name:<10} {state}", highlight=False)
    _raw("\nToken (8 hours, every scope):\n")
    _raw(token)
    _raw("\nTry it:\n")
    _raw(
        f"curl -s {url} -H 'Authorization: Bearer {token}' \\\n"
        "  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\\n"
        "  -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: deploy__list_services' \\\n"
        f"  -d '{json.dumps(call)}'"
    )
    _raw("\nClient configuration:\n")
    _raw(json.dumps(client, indent=2))
    _raw(
        "\nmcp-gateway tools --scopes 'deploy:read time:read'   what fewer scopes may call"
        f"\nmcp-gateway audit verify {audit}   every decision, tamper-evident"
        "\n\nCtrl-C ends everything."
    )
    sys.stdout.flush()


def _raw(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
