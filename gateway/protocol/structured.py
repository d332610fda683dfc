"""What legacy clients can read of structured content: before 2026-07-28 it and its schema were objects.

Their SDKs check that, and give up the whole list or the result where it is not so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from gateway.protocol.strict_json import encode

_CONTENT, _SCHEMA = "structuredContent", "outputSchema"


def legacy_result(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result, without structured content that is no object; a text block says it instead, if none does already."""
    if _CONTENT not in result or _is_object(structured := result[_CONTENT]):
        return result
    kept = {name: value for name, value in result.items() if name != _CONTENT}
    blocks = _blocks(kept.get("content"))
    if blocks is not None and not any(map(_is_text, blocks)):
        said = structured if isinstance(structured, msgspec.Raw) else encode(structured)
        block = {"type": "text", "text": bytes(said).decode()}
        kept["content"] = [*blocks, block]
    return kept


@lru_cache(maxsize=4096)
def legacy_definition(rendered: bytes) -> bytes:
    """A tool's ready definition, without an output schema whose root is not of type ``object``."""
    if b'"outputSchema"' not in rendered:
        return rendered
    members = msgspec.json.decode(rendered, type=dict[str, msgspec.Raw])
    if _SCHEMA not in members or _has_object_root(members[_SCHEMA]):
        return rendered
    return encode({name: value for name, value in members.items() if name != _SCHEMA})


def _is_object(value: Any) -> bool:
    return bytes(value).lstrip()[:1] == b"{" if isinstance(value, msgspec.Raw) else isinstance(value, dict)


def _has_object_root(schema: msgspec.Raw) -> bool:
    return _is_object(schema) and _says_type(schema, b'"object"')


def _says_type(value: msgspec.Raw, kind: bytes) -> bool:
    return bytes(msgspec.json.decode(value, type=dict[str, msgspec.Raw]).get("type", b"")).strip() == kind


def _blocks(content: Any) -> list[Any] | None:
    """The content blocks, as they are; None where the content is no list."""
    if isinstance(content, msgspec.Raw):
        return msgspec.json.decode(content, type=list[msgspec.Raw]) if bytes(content).lstrip()[:1] == b"[" else None
    return content if isinstance(content, list) else None


def _is_text(block: Any) -> bool:
    if isinstance(block, msgspec.Raw):
        return _is_object(block) and _says_type(block, b'"text"')
    return isinstance(block, dict) and block.get("type") in ("text", msgspec.Raw(b'"text"'))
