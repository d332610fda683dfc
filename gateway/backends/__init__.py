"""Everything behind the gateway: one backend a route, whatever era and transport its MCP server speaks."""
