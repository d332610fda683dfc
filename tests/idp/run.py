"""Runs the gateway behind real identity providers: the tokens of every flow, their refusals, keys that change.

    python tests/idp/run.py            Keycloak and oidc-provider, about a minute and a half, the first time two
    python tests/idp/run.py exchange   the checks whose name has one of these words

Exit codes: 0 passed, 1 not, 2 something is missing (0 with OPTIONAL=1).
"""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.idp import of_keycloak, of_provider
from tests.idp.gateway import deploy_tools
from tests.idp.install import Missing

Check = Callable[[], None]


def main(words: list[str]) -> int:
    """Run what can be run and print the table."""
    results: dict[str, str] = {}
    missing: list[str] = []

    def run(name: str, check: Check) -> None:
        if words and not any(word in name for word in words):
            return
        began = time.monotonic()
        try:
            check()
        except Exception:  # noqa: BLE001 - a failed check is a row of the table
            results[name] = "FAILED\n    " + traceback.format_exc(limit=-3).strip().replace("\n", "\n    ")
        else:
            results[name] = f"passed  {time.monotonic() - began:.1f} s"

    with tempfile.TemporaryDirectory(prefix="idp-") as folder, deploy_tools() as url:
        for suite in (of_keycloak, of_provider):
            try:
                suite.run(Path(folder), url, run)
            except Missing as why:
                missing.append(str(why))
            except (RuntimeError, AssertionError) as why:
                results[f"{suite.__name__.rpartition('_')[2]}: it starts"] = f"FAILED\n    {why}"
    sys.stdout.write(_table(results))
    sys.stdout.writelines(f"missing: {line}\n" for line in missing)
    if any(result.startswith("FAILED") for result in results.values()):
        return 1
    return 2 if missing and os.environ.get("OPTIONAL") != "1" else 0


def _table(results: dict[str, str]) -> str:
    width = max(map(len, results), default=0)
    failed = sum(result.startswith("FAILED") for result in results.values())
    rows = "".join(f"{name:<{width}}  {result}\n" for name, result in results.items())
    return f"{rows}{len(results) - failed} passed, {failed} failed\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
