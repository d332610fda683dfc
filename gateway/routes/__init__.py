"""Policy: ``routes.yaml``, which can be reloaded while the gateway runs."""

from gateway.errors import ConfigError, Problem
from gateway.routes.auth import Auth, Introspection, Issuer, JwksPolicy
from gateway.routes.backend import Backend
from gateway.routes.credentials import AuthorizationCode, ClientCredentials, Credentials, OAuthClient, TokenExchange
from gateway.routes.limits import LimitRule
from gateway.routes.loader import load, parse
from gateway.routes.models import Defaults, Route, Routes, ToolRule, Toolset
from gateway.routes.reference import json_schema, markdown

__all__ = [
    "Auth",
    "AuthorizationCode",
    "Backend",
    "ClientCredentials",
    "ConfigError",
    "Credentials",
    "Defaults",
    "Introspection",
    "Issuer",
    "JwksPolicy",
    "LimitRule",
    "OAuthClient",
    "Problem",
    "Route",
    "Routes",
    "TokenExchange",
    "ToolRule",
    "Toolset",
    "json_schema",
    "load",
    "markdown",
    "parse",
]
