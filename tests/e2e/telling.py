"""A real server with tools, prompts, resources and templates, and the words that it has for them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.servers.start import http_server


@dataclass
class Telling:
    """``says`` takes descriptions by name from the next listing on; None takes the entry away."""

    url: str
    words: Path

    @classmethod
    @contextmanager
    def running(cls, words: Path) -> "Iterator[Telling]":
        words.write_text("{}")
        with http_server("--words", str(words), program="telling.py") as server:
            yield cls(server.url, words)

    def says(self, **words: str | None) -> None:
        self._write({**json.loads(self.words.read_text()), **words})

    def forget(self) -> None:
        """Be as at the start."""
        self._write({})

    def _write(self, words: Mapping[str, str | None]) -> None:
        partial = self.words.with_suffix(".new")
        partial.write_text(json.dumps(words))
        partial.replace(self.words)
