"""Connecting accounts, as the process does it: what is sealed with which keys, and kept where."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.backends.credentials.connecting import Connections
from gateway.backends.credentials.grants import Grants
from gateway.ports import AuditLog
from gateway.routes import Auth
from gateway.vault import Vault


def open_connections(
    keys: Sequence[bytes], vault: Vault, auth: Callable[[], Auth | None], audit: AuditLog
) -> Connections:
    """``auth`` is that of the present rules."""
    grants = Grants(keys, vault, time.time)
    return Connections(keys, vault, grants, auth=auth, now=time.time, audit=audit)
