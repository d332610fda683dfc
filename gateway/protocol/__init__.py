"""MCP on the wire, both eras, without I/O: bytes and mappings in, values or a refusal out."""
