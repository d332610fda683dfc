"""``make fuzz``: every property test, and the fuzzers of this folder, again and again with another seed each time.

    FUZZ_SECONDS=600 make fuzz      rounds for so long, at least one (default 120)
    FUZZ_EXAMPLES=5000 make fuzz    examples of each test in a round (default 500)
    python tests/fuzz/run.py -k gateway tests/fuzz

A round prints its seed. What it finds is printed, kept in ``.hypothesis``, and tried first from then on.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["tests/unit", "tests/integration", "tests/fuzz"]


def main(arguments: list[str]) -> int:
    """Rounds until one fails or the time is over."""
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "120"))
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        rounds += 1
        seed = time.time_ns() % 2**32
        sys.stdout.write(f"round {rounds}, seed {seed}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "--hypothesis-profile=fuzz"]
        command += [f"--hypothesis-seed={seed}", "--tb=short", *(arguments or FOLDERS)]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if ended.returncode:
            return ended.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
