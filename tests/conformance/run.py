"""``make conformance``: runs ``runner.py`` of this folder, from whichever directory."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("tests.conformance.runner", run_name="__main__", alter_sys=True)
