"""The protocol revisions this gateway speaks towards clients (specification, ``basic/versioning``)."""

from __future__ import annotations

MODERN: tuple[str, ...] = ("2026-07-28",)
LEGACY: tuple[str, ...] = ("2025-11-25", "2025-06-18", "2025-03-26")
LATEST_LEGACY = LEGACY[0]
BATCH_REVISION = "2025-03-26"
"""The one revision in which a body may be an array of messages."""

RESUMABLE = frozenset({"2025-11-25"})
"""Legacy revisions whose clients understand the priming event of a stream that can be resumed."""

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
RESERVED_PREFIX = "io.modelcontextprotocol/"

VENDOR_PREFIX = "io.mcp-gateway/"
REFUSAL = VENDOR_PREFIX + "refusal"
LIMITS = VENDOR_PREFIX + "limits"
STALE = VENDOR_PREFIX + "stale"
ROUTE = VENDOR_PREFIX + "route"
"""In a question to the client: which backend asks. A client has to show that (``client/elicitation``)."""
