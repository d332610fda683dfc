"""What the fixture server offers besides its tools: prompts, resources, and the bytes that some of them carry."""

import base64
import json
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import mcp_types as types


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pixel() -> bytes:
    """A PNG of one red pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _silence() -> bytes:
    """A WAV of eight silent samples."""
    sound = b"\x80" * 8
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(sound)) + sound
    return struct.pack("<4sI", b"RIFF", len(body)) + body


PNG = base64.b64encode(_pixel()).decode()
WAV = base64.b64encode(_silence()).decode()


def text(value: str) -> types.TextContent:
    return types.TextContent(text=value)


def image() -> types.ImageContent:
    return types.ImageContent(data=PNG, mime_type="image/png")


def embedded(uri: str, mime_type: str, value: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=value))


RESOURCES = [
    types.Resource(
        uri="test://static-text", name="static-text", description="A text that never changes", mime_type="text/plain"
    ),
    types.Resource(
        uri="test://static-binary", name="static-binary", description="A picture of one pixel", mime_type="image/png"
    ),
    types.Resource(
        uri="test://watched-resource", name="watched", description="A text to subscribe to", mime_type="text/plain"
    ),
]

TEMPLATES = [
    types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="Data by id",
        mime_type="application/json",
    )
]

_TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "Watched.",
}
_TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def read(uri: str) -> types.TextResourceContents | types.BlobResourceContents | None:
    """The resource, or None where there is none."""
    if uri == "test://static-binary":
        return types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    if uri in _TEXTS:
        return types.TextResourceContents(uri=uri, mime_type="text/plain", text=_TEXTS[uri])
    found = _TEMPLATE.fullmatch(uri)
    if found is None:
        return None
    data = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
    return types.TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(data))


def _argument(name: str, description: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=description, required=True)


PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="A prompt without arguments"),
    types.Prompt(
        name="test_prompt_with_arguments",
        description="A prompt with two arguments",
        arguments=[_argument("arg1", "The first"), _argument("arg2", "The second")],
    ),
    types.Prompt(
        name="test_prompt_with_embedded_resource",
        description="A prompt that carries a resource",
        arguments=[_argument("resourceUri", "The resource's URI")],
    ),
    types.Prompt(name="test_prompt_with_image", description="A prompt that carries a picture"),
    types.Prompt(name="test_input_required_result_prompt", description="A prompt that asks before it answers"),
]


def messages(name: str, arguments: Mapping[str, str]) -> list[Any] | None:
    """The content of each message of a prompt, or None where there is no such prompt."""
    if name == "test_simple_prompt":
        return [text("This is a simple prompt for testing.")]
    if name == "test_prompt_with_arguments":
        return [text(f"Prompt with arguments: arg1='{arguments.get('arg1')}', arg2='{arguments.get('arg2')}'")]
    if name == "test_prompt_with_embedded_resource":
        uri = arguments.get("resourceUri", "test://example-resource")
        resource = embedded(uri, "text/plain", "Embedded resource content for testing.")
        return [resource, text("Please process the embedded resource above.")]
    if name == "test_prompt_with_image":
        return [image(), text("Please analyze the image above.")]
    return None
