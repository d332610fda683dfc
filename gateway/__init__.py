"""mcp-gateway: one URL for all your MCP servers, with authentication, scopes, limits and audit on."""

__version__ = "0.1.0"
