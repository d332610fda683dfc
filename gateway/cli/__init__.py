"""The commands. Exit codes: 0 done, 1 no (a problem was found, a call was refused), 2 the configuration is unusable."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import audit, client, config, demo, explain, lock, serve, tokens

app = typer.Typer(
    name="mcp-gateway",
    help="One URL for all your MCP servers: authentication, scopes, limits and audit from one YAML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(serve.serve)
app.command()(demo.demo)
app.command()(config.check)
app.command()(lock.lock)
app.command()(client.tools)
app.command()(client.call)
app.command()(tokens.token)
app.command()(explain.explain)
app.add_typer(audit.app, name="audit")
app.command()(config.schema)


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Print the version."""
    typer.echo(f'{{"version": "{__version__}"}}' if as_json else f"mcp-gateway {__version__}")
