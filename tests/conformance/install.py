"""Where Node.js and the two versions of the official suite are."""

from dataclasses import dataclass
from pathlib import Path

from tests import install as shared
from tests.install import ROOT, Missing

__all__ = ["ROOT", "Missing", "Tools", "install"]

LOCKS = Path(__file__).parent / "npm"
SUITES = ("current", "stable")
PACKAGE = Path("node_modules/@modelcontextprotocol/conformance")


@dataclass(frozen=True, slots=True)
class Tools:
    """Where Node.js is, and the two versions of the suite."""

    node: Path
    suites: dict[str, Path]

    def command(self, suite: str) -> list[str]:
        return [str(self.node), str(self.suites[suite] / PACKAGE / "dist/index.js")]

    def requirements(self, suite: str, revision: str) -> Path:
        return self.suites[suite] / PACKAGE / f"requirements/{revision}.yaml"


def install() -> Tools:
    """Install what is not there yet.

    Raises:
        Missing: an installer failed.
    """
    return Tools(shared.node(), {suite: shared.npm(f"conformance-{suite}", LOCKS / suite) for suite in SUITES})
