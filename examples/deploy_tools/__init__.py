"""Deployments of our services as MCP tools: an example of a server to put behind the gateway."""
