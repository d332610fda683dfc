"""Which era does a backend speak? Judged from what it answers to ``server/discover``.

``modern`` needs evidence: a usable result that names a modern revision, or an error only a modern server gives.
Everything else that is an answer means ``initialize``; no answer code stands for legacy (specification,
``basic/versioning``). Silence of a network and 5xx are no answers and decide nothing: they are not judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION
from gateway.models import Era
from gateway.protocol.revisions import LEGACY, MODERN, SERVER_INFO

_HANDSHAKE = (*LEGACY, "2024-11-05")


def pinned(era: str) -> Era | None:
    """What ``era:`` of a route fixes; None to find out."""
    if era in ("modern", *MODERN):
        return "modern"
    return "legacy" if era in ("legacy", *_HANDSHAKE) else None


def era_of_result(result: Mapping[str, Any]) -> Era:
    """The era of a backend that answered ``server/discover`` with a result."""
    versions = result.get("supportedVersions")
    usable = isinstance(versions, list) and any(version in MODERN for version in versions)
    return "modern" if usable else "legacy"


def era_of_error(code: int, data: Any) -> Era:
    """The era of a backend that answered ``server/discover`` with an error."""
    if code == UNSUPPORTED_VERSION:
        supported = data.get("supported") if isinstance(data, Mapping) else None
        named = supported if isinstance(supported, list) else []
        return "modern" if any(version in MODERN for version in named) else "legacy"
    return "modern" if code in (HEADER_MISMATCH, MISSING_CAPABILITY) else "legacy"


def speaks(revision: object) -> bool:
    """Whether ``initialize`` was answered with a revision that a session can go on with."""
    return revision in _HANDSHAKE


def server_info_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Who answered ``server/discover`` (in ``_meta`` since 2026-07-28) or ``initialize``."""
    meta = result.get("_meta")
    named = meta.get(SERVER_INFO) if isinstance(meta, dict) else None
    named = named if named is not None else result.get("serverInfo")
    return named if isinstance(named, dict) else None
