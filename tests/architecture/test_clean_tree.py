"""What is in the repository names no machine and no mirror."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIPPED = {"node_modules", "var", "dist", "out", "__pycache__"}
HIDDEN_BUT_OURS = {".ci", ".gitignore", ".dockerignore", ".helmignore"}

# Written in pieces, so that this file is not a find.
MACHINE = re.compile(r"(?<![\w.$}])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me)/\w")
MIRROR = re.compile(
    "|".join(
        (r"files\.python" + "hosted", "pypi" + r"\.org/simple", r"registry\.npm" + "js", "index-" + r"url[ =]+https?:")
    )
)


def _files(folder: Path = ROOT) -> Iterator[Path]:
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name not in HIDDEN_BUT_OURS
        if hidden or path.name in SKIPPED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _finds(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in _files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    return sorted(found)


def test_no_file_holds_a_path_of_somebody_s_machine() -> None:
    assert _finds(MACHINE) == []


def test_no_file_holds_the_address_of_a_package_registry() -> None:
    assert _finds(MIRROR) == []


def test_the_licence_is_the_whole_apache_2_0() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
