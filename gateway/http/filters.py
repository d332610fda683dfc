"""``subscriptions/listen`` on the wire: what a client asks for, and the messages of its stream (2026-07-28). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.http.responder import event
from gateway.protocol.strict_json import encode

ListKind = Literal["tools", "prompts", "resources"]
LISTS: tuple[ListKind, ...] = ("tools", "prompts", "resources")
RequestId = str | int

SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
MAX_LISTENED_URIS = 1_000
MAX_URI_LENGTH = 4_096

_FLAGS: Mapping[ListKind, str] = {kind: f"{kind}ListChanged" for kind in LISTS}


class Filter(msgspec.Struct, frozen=True):
    """The changes that a stream tells: of which lists, and of which resources."""

    lists: frozenset[ListKind] = frozenset()
    uris: tuple[str, ...] = ()

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Filter:
        """Read the ``notifications`` of a request; members of extensions are not honoured and so not kept.

        Raises:
            InvalidRequest: -32602.
        """
        asked = params.get("notifications")
        if not isinstance(asked, dict):
            raise _invalid("The request needs params.notifications, an object.")
        for flag in _FLAGS.values():
            if not isinstance(asked.get(flag, False), bool | None):
                raise _invalid(f"params.notifications.{flag} must be true or false.")
        uris = asked.get("resourceSubscriptions") or []
        if not isinstance(uris, list) or not all(isinstance(uri, str) and len(uri) <= MAX_URI_LENGTH for uri in uris):
            raise _invalid("params.notifications.resourceSubscriptions must be an array of URIs.")
        if len(uris) > MAX_LISTENED_URIS:
            raise _invalid(f"One stream may watch {MAX_LISTENED_URIS} resources.")
        return cls(frozenset(kind for kind, flag in _FLAGS.items() if asked.get(flag)), tuple(dict.fromkeys(uris)))

    def on_the_wire(self) -> dict[str, Any]:
        """As ``notifications`` of an acknowledgement: nothing that is not honoured."""
        wire: dict[str, Any] = {flag: True for kind, flag in _FLAGS.items() if kind in self.lists}
        if self.uris:
            wire["resourceSubscriptions"] = list(self.uris)
        return wire


def acknowledgement(request_id: RequestId, honoured: Filter) -> bytes:
    """The first message of a stream, as an event."""
    params = {"notifications": honoured.on_the_wire()}
    return _notification("notifications/subscriptions/acknowledged", params, request_id)


def list_changed(kind: ListKind, request_id: RequestId | None) -> bytes:
    """A changed list, as an event; ``request_id`` None in the legacy era."""
    return _notification(f"notifications/{kind}/list_changed", {}, request_id)


def updated(uri: str, request_id: RequestId | None) -> bytes:
    """A changed resource, as an event; ``request_id`` None in the legacy era."""
    return _notification("notifications/resources/updated", {"uri": uri}, request_id)


def result(request_id: RequestId) -> bytes:
    """The last message of a stream that the gateway ends, as an event."""
    members = {"resultType": "complete", "_meta": {SUBSCRIPTION_ID: request_id}}
    return event(encode({"jsonrpc": "2.0", "id": request_id, "result": members}))


def _notification(method: str, params: Mapping[str, Any], request_id: RequestId | None) -> bytes:
    if request_id is not None:
        params = {**params, "_meta": {SUBSCRIPTION_ID: request_id}}
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return event(encode(message))


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code=INVALID_PARAMS, status=200)
