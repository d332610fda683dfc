"""``token``: development tokens, of the running demo's issuer or of a key file of one's own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from gateway.cli.output import UNUSABLE, as_json, fail
from gateway.devtokens import DevIssuer
from gateway.routes import Auth, Routes

EXAMPLE_SERVER = "127.0.0.1:9000"
"""Where ``config/routes.yaml`` has the example server; the demo starts one on a free port."""
DEMO_STATE = Path("var/demo")
"""Where the running demo keeps its throw-away key, its audit and this description of itself."""
DEMO_AUDIT = DEMO_STATE / "audit.jsonl"


@dataclass(frozen=True, slots=True)
class DemoIssuer:
    """What a token for the running demo has to say, and where its example server listens."""

    issuer: str
    audience: str
    url: str
    key: str
    deploy_url: str = ""

    def save(self, folder: Path = DEMO_STATE) -> None:
        """Leave it for the other commands."""
        (folder / "issuer.json").write_text(json.dumps(asdict(self)))

    @property
    def jwks(self) -> Path:
        """The file with its public key, beside the private one."""
        return Path(self.key).with_name("jwks.json").resolve()

    def within(self, routes: Routes) -> Routes:
        """The same routes with the throw-away issuer as ``auth`` and the example server where it listens."""
        issuers = [{"issuer": self.issuer, "jwks_file": str(self.jwks)}]
        auth = routes.auth or Auth.model_validate({"resource": self.audience, "issuers": issuers})
        return self.beside(routes).model_copy(update={"auth": auth})

    def beside(self, routes: Routes) -> Routes:
        """The same routes with the example server where it listens."""
        changed = tuple(
            route.model_copy(update={"backend": route.backend.model_copy(update={"url": self.deploy_url})})
            if route.backend.url is not None and urlsplit(route.backend.url).netloc == EXAMPLE_SERVER
            else route
            for route in routes.routes
        )
        return routes.model_copy(update={"routes": changed})

    @classmethod
    def load(cls, folder: Path = DEMO_STATE) -> DemoIssuer | None:
        """The running demo's, or None where none runs here."""
        try:
            return cls(**json.loads((folder / "issuer.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


def token(  # noqa: PLR0913, PLR0917 - one parameter for each option
    scopes: Annotated[str, typer.Option(help="Scopes, separated by spaces or commas.")],
    subject: Annotated[str, typer.Option(help="Whom the token speaks for.")] = "developer",
    client_id: Annotated[str, typer.Option(help="The OAuth client.")] = "mcp-gateway-token",
    lifetime: Annotated[int, typer.Option(help="Seconds.")] = 3600,
    key: Annotated[Path | None, typer.Option(help="Private key, made where missing. Default: the demo's.")] = None,
    issuer: Annotated[str, typer.Option(help="With --key: the issuer of the routes file.")] = "",
    audience: Annotated[str, typer.Option(help="With --key: auth.resource of the routes file.")] = "",
    jwks: Annotated[Path | None, typer.Option(help="With --key: write the public keys here, for jwks_file.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print a development token. Never for production: whoever has the key is everybody."""
    if key is None:
        minted = mint_for_demo(scopes, subject, client_id, lifetime)
    elif not issuer or not audience:
        fail("--key needs --issuer and --audience", UNUSABLE)
    else:
        own = DevIssuer.create(issuer, key)
        if jwks is not None:
            jwks.write_text(json.dumps(own.jwks()))
        minted = own.mint(subject, split(scopes), audience, client_id, lifetime)
    if json_output:
        as_json({"token": minted, "expires_in": lifetime, "scopes": sorted(split(scopes))})
    else:
        typer.echo(minted)


def mint_for_demo(
    scopes: str, subject: str = "developer", client_id: str = "mcp-gateway-token", lifetime: int = 3600
) -> str:
    """A token for the demo that runs in this folder, or a word why not and exit 2."""
    demo = DemoIssuer.load()
    if demo is None:
        fail("no demo runs in this folder: start it with make run, or give --key, --issuer, --audience", UNUSABLE)
    return DevIssuer.create(demo.issuer, Path(demo.key)).mint(
        subject, split(scopes), demo.audience, client_id, lifetime
    )


def split(scopes: str) -> list[str]:
    """Scopes of a command line: by spaces, commas or both."""
    return scopes.replace(",", " ").split()
