"""One reading of every body: JSON that two parsers could read differently is refused.

RFC 8259 leaves duplicate keys, numbers out of range and lone surrogates open; a gateway that authorises one reading
and forwards bytes that mean another has no policy. What passes here has exactly one meaning, so that the bytes of
``params.arguments`` may be forwarded as they came.
"""

from __future__ import annotations

import re
from typing import Any

import jiter
import msgspec

from gateway.errors import INVALID_REQUEST, PARSE_ERROR, InvalidRequest

MAX_DEPTH = 64


def parse(body: bytes) -> Any:
    """Decode a body strictly.

    Raises:
        InvalidRequest: -32700 for what is not JSON in UTF-8, duplicate keys, NaN, numbers out of range, a byte order
            mark; -32600 for nesting over ``MAX_DEPTH``.
    """
    try:
        value = _ANYTHING.decode(body)
        if encode(value) != body:
            value = _examined(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        value = _examined(body)
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    return value


def members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object as the bytes they are written in; ``raw`` has passed ``parse``."""
    return _MEMBERS.decode(raw)


def params(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of ``params`` as the bytes they are written in, of a request that has some and passed ``parse``."""
    return _REQUEST.decode(body).params


class _Request(msgspec.Struct):
    params: dict[str, msgspec.Raw]


_ANYTHING = msgspec.json.Decoder()
_REQUEST = msgspec.json.Decoder(_Request)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])

encode = msgspec.json.Encoder().encode
"""JSON of a value whose parts may be ``msgspec.Raw``, which are copied as they are."""


def _examined(body: bytes) -> Any:
    """The value of a body that is not written as ``encode`` writes its value, which leaves no room for a second one."""
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
        _ANYTHING.decode(body)  # the other parser knows which numbers no double can hold
    except msgspec.MsgspecError:
        raise InvalidRequest(
            "The body has a number out of range.", code=PARSE_ERROR, rule="protocol.number_range"
        ) from None
    except ValueError as error:
        if "recursion" in str(error):
            raise _too_deep() from None
        rule = "protocol.duplicate_key" if "duplicate key" in str(error) else "protocol.json"
        raise InvalidRequest(f"The body is not valid JSON: {_reason(error)}.", code=PARSE_ERROR, rule=rule) from None
    return value


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"The body is nested deeper than {MAX_DEPTH} levels.", code=INVALID_REQUEST, rule="protocol.depth"
    )


def _reason(error: ValueError) -> str:
    # jiter quotes keys of the body; positions are enough for the sender and hold nothing of anybody.
    text = str(error)
    position = re.search(r"line \d+ column \d+$", text)
    where = f" at {position.group()}" if position else ""
    return f"a key appears twice{where}" if "duplicate key" in text else f"syntax error{where}"


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        children: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                children.extend(node.values())
            elif isinstance(node, list):
                children.extend(node)
        depth += any(isinstance(node, dict | list) for node in level)
        level = children
    return depth
