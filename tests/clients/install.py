"""The clients, each in an environment of its own."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import install as shared
from tests.install import Missing

HERE = Path(__file__).parent
SLOW = shared.SLOW / "clients"
MCP1 = ("mcp==1.30.0", "langchain-mcp-adapters==0.3.2")
MCP2 = ("openai-agents==0.24.0", "pydantic-ai-slim[mcp]==2.68.0")


@dataclass(frozen=True, slots=True)
class Places:
    """Where each runtime is, or the word why it is not there."""

    node: Path | Missing
    mcp1: Path | Missing
    mcp2: Path | Missing


def install() -> Places:
    """Install what is not there yet, all at once."""
    with ThreadPoolExecutor() as pool:
        node, mcp1, mcp2 = pool.map(_or_why, (_node, _mcp1, _mcp2))
    return Places(node, mcp1, mcp2)


def _or_why(make: Callable[[], Path]) -> Path | Missing:
    try:
        return make()
    except Missing as missing:
        return missing


def _mcp1() -> Path:
    return shared.python("clients/mcp1", MCP1)


def _mcp2() -> Path:
    return shared.python("clients/mcp2", MCP2)


def _node() -> Path:
    """Node.js, with the packages beside the drivers that import them."""
    packages = shared.npm("clients/npm", HERE)
    shutil.copy(HERE / "drivers" / "typescript.mjs", packages)
    return shared.node()
