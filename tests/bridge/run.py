"""``make bridge-test``: every combination of eras, with servers and clients that know one of them only.

Installs the Python SDK 1.x and the TypeScript SDK 1.x, which know no modern era, each in an environment of its own, and
runs the tests of this folder. Exit codes: those of pytest, 2 where something is missing (0 with OPTIONAL=1).
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MCP1 = ("mcp==1.30.0",)


def main(arguments: list[str]) -> int:
    """Install, then run pytest with what was installed."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests import install as shared

    try:
        packages = shared.npm("bridge/npm", HERE)
        places = {
            "BRIDGE_PYTHON": str(shared.python("bridge/mcp1", MCP1)),
            "BRIDGE_NODE": str(shared.node()),
            "BRIDGE_PACKAGES": str(packages),
        }
    except shared.Missing as missing:
        sys.stdout.write(f"missing: {missing}\n")
        return 0 if os.environ.get("OPTIONAL") == "1" else 2
    command = [sys.executable, "-m", "pytest", str(HERE), *arguments]
    return subprocess.run(command, cwd=HERE.parents[1], env={**os.environ, **places}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
