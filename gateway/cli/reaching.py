"""What the backends of a routes file offer now, for commands that look once and leave."""

from __future__ import annotations

import asyncio

from gateway import __version__
from gateway.backends.route_backend import RouteBackend
from gateway.cli.tokens import DemoIssuer
from gateway.models import Listing
from gateway.routes import Routes
from gateway.telemetry.metrics import Metrics


async def listings_of(routes: Routes) -> dict[str, Listing]:
    """The listing of each route whose backend was reached; beside the running demo, of its example server too."""
    demo = DemoIssuer.load()
    if demo is not None:
        routes = demo.beside(routes)
    listings: dict[str, Listing] = {}
    meter = Metrics(__version__)
    backends = [
        RouteBackend(route, on_listing=lambda it: listings.update({it.route: it}), meter=meter, version=__version__)
        for route in routes.routes
    ]
    for backend in backends:
        backend.start()
    await asyncio.gather(*(backend.first_attempt() for backend in backends))
    await asyncio.gather(*(backend.aclose() for backend in backends))
    return listings
