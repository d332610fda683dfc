"""Connecting accounts, as the process does it: what is sealed with which keys, kept where, and recorded how."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from gateway.audit import AuditEvent
from gateway.backends.credentials.connecting import Connections
from gateway.backends.credentials.grants import Grants
from gateway.models import Principal
from gateway.routes import Auth
from gateway.vault import Vault


def open_connections(
    keys: Sequence[bytes], vault: Vault, auth: Callable[[], Auth | None], record: Callable[[AuditEvent], None]
) -> Connections:
    """``auth`` is that of the present rules; ``record`` is told of each account that was connected."""

    def connected(route: str, principal: Principal) -> None:
        event = AuditEvent(request_id=os.urandom(10).hex(), method="account/connect", route=route, principal=principal)
        event.outcome, event.http_status, event.started = "ok", 200, time.time()
        record(event)

    grants = Grants(keys, vault, time.time)
    return Connections(keys, vault, grants, auth=auth, now=time.time, record=connected)
