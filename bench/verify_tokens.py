"""What it costs to know whose a token is: one that was seen before, and one that is new, for each algorithm;
and what of the latter is the check of the signature alone.

    .venv/bin/python bench/verify_tokens.py

Prints the best batch, in microseconds of CPU. Nothing is asserted: the time is the machine's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from gateway import tokens
from gateway.devtokens import Algorithm, DevIssuer
from gateway.policy.authenticate import TokenAuthenticator, signed_by
from gateway.routes import Auth

ISSUER, RESOURCE = "https://idp.example.com", "https://mcp.example.com/mcp"
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
BATCHES, KNOWN, NEW = 15, 5000, 200
SCOPES = ("deploy:read", "deploy:write", "time:read", "git:read")


class Keys:
    """One key, at hand."""

    generation = 0

    def __init__(self, issuer: DevIssuer) -> None:
        self._keys = [issuer.key.public_key()]

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        return self._keys


async def measure(algorithm: Algorithm) -> tuple[float, float, float]:
    """Microseconds for a known token, for a new one, and for the check of a signature alone."""
    issuer = DevIssuer.create(ISSUER, algorithm=algorithm)
    auth = Auth.model_validate({"resource": RESOURCE, "issuers": [{"issuer": ISSUER}]})
    known, new, alone = [], [], []
    key = issuer.key.public_key()
    for _ in range(BATCHES):
        authenticate = TokenAuthenticator(auth, Keys(issuer))
        headers = [[f"Bearer {issuer.mint(f'agent-{n}', SCOPES, RESOURCE)}".encode()] for n in range(NEW)]
        began = time.process_time()
        for header in headers:
            await authenticate(header)
        new.append((time.process_time() - began) / NEW)
        parts = [tokens.take_apart(header.removeprefix(b"Bearer ")) for (header,) in headers]
        began = time.process_time()
        for part in parts:
            assert signed_by(key, part, algorithm)
        alone.append((time.process_time() - began) / NEW)
        header = headers[0]
        began = time.process_time()
        for _ in range(KNOWN):
            await authenticate(header)
        known.append((time.process_time() - began) / KNOWN)
    return min(known) * 1e6, min(new) * 1e6, min(alone) * 1e6


def main() -> None:
    """Print the table."""
    print(f"{'algorithm':<10} {'known':>8} {'new':>8} {'signature':>10}   microseconds")
    for algorithm in ALGORITHMS:
        known, new, alone = asyncio.run(measure(algorithm))
        print(f"{algorithm:<10} {known:8.2f} {new:8.1f} {alone:10.1f}")


if __name__ == "__main__":
    main()
