"""What comes back for one request of the modern era, read no deeper than its envelope.

The members of a result stay the bytes that the backend sent.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal

import msgspec

from gateway.backends.http1 import HttpResponse
from gateway.models import JsonObject
from gateway.ports import Notify


class Error(msgspec.Struct):
    """A JSON-RPC error."""

    code: int
    message: str = ""
    data: Any = msgspec.UNSET


class Message(msgspec.Struct):
    """A JSON-RPC message of whatever kind."""

    jsonrpc: Literal["2.0"]
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: dict[str, msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    error: Error | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(Message)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class Exchange(msgspec.Struct):
    """What comes back for the request ``id``, as JSON or as a stream, of which something was ``heard``.

    Only notifications of the methods in ``wanted`` are told, progress only with our token, which is the id.
    """

    id: int
    notify: Notify
    wanted: Container[str]
    heard: bool = False
    answer: Message | None = None

    def on_event(self, data: bytes) -> bool:
        """Take one event of the stream; True when there is no more to wait for, be it that nothing good can come."""
        if not data:  # an event that only carries an id
            return False
        self.heard = True
        message = decode(data)
        if message is not None and message.method is not msgspec.UNSET and message.id is msgspec.UNSET:
            self._notification(message.method, message.params)
            return False
        self.answer = message
        return True

    def message(self, response: HttpResponse) -> Message | None:
        """The one answer to our request, or None. An error may lack the id where the server read none (4xx, 5xx)."""
        message = self.answer if self.heard else decode(response.body)
        if message is None or message.method is not msgspec.UNSET:
            return None
        if (message.error is msgspec.UNSET) == (message.result is msgspec.UNSET):
            return None
        unread = message.id is None or message.id is msgspec.UNSET
        if unread and message.error is not msgspec.UNSET and response.status >= 400:
            return message
        return message if message.id == self.id else None

    def _notification(self, method: str, raw: msgspec.Raw | msgspec.UnsetType) -> None:
        if method not in self.wanted or raw is msgspec.UNSET:
            return
        params = decode_object(raw)
        if params is None:
            return
        if method == "notifications/progress" and params.pop("progressToken", None) != self.id:
            return
        self.notify(method, params)


def decode(data: bytes) -> Message | None:
    """A message, or None for what is none."""
    try:
        if not data.isascii():
            data.decode()  # what stays raw is not checked by the decoder
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_object(raw: bytes | msgspec.Raw) -> JsonObject | None:
    """A JSON object, or None for what is none."""
    try:
        return _object_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
