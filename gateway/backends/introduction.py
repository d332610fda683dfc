"""The ``_meta`` of a request to a modern backend: who speaks, for whom, and what that one can do (2026-07-28).

Its reserved keys are ours on this leg, never the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.models import BackendRequest, JsonObject
from gateway.protocol.clients import LOG_LEVEL
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, MODERN, PROTOCOL_VERSION, VENDOR_PREFIX

ORIGINAL_CLIENT_INFO = VENDOR_PREFIX + "client-info"
"""``_meta`` key under which a backend finds whom the gateway speaks for; unverified, as ``clientInfo`` is."""

SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"

_OURS = frozenset({PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, SUBSCRIPTION_ID, "progressToken"})
_KEPT = 256

_encode = msgspec.json.Encoder().encode


class Introductions:
    """``info`` is the gateway's ``clientInfo``. Of a client that says no more than who it is, the text is kept."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._info = info
        self._kept: dict[tuple[int, int], tuple[msgspec.Raw, Any, Any]] = {}

    def of(self, request: BackendRequest, request_id: int) -> Any:
        """The ``_meta`` of ``request``; where it wants progress, ``request_id`` is its token."""
        if not request.meta and not request.wants_progress and request.log_level is None:
            return self._short(request)
        meta = {key: value for key, value in request.meta.items() if _crosses(key)} | self._introduced(request)
        if request.wants_progress:
            meta["progressToken"] = request_id
        if request.log_level is not None:
            meta[LOG_LEVEL] = request.log_level
        return meta

    def _short(self, request: BackendRequest) -> msgspec.Raw:
        """Found by the identity of what it is made of, which is kept with it: requests of one client share them."""
        capabilities, client_info = request.capabilities, request.client_info
        said = id(capabilities), id(client_info)
        known = self._kept.get(said)
        if known is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            text = msgspec.Raw(_encode(self._introduced(request)))
            known = self._kept[said] = text, capabilities, client_info
        return known[0]

    def _introduced(self, request: BackendRequest) -> JsonObject:
        meta: JsonObject = {
            PROTOCOL_VERSION: MODERN[0],
            CLIENT_CAPABILITIES: request.capabilities,
            CLIENT_INFO: self._info,
        }
        if request.client_info is not None:
            meta[ORIGINAL_CLIENT_INFO] = request.client_info
        return meta


def _crosses(key: str) -> bool:
    return key not in _OURS and not key.startswith(VENDOR_PREFIX)
