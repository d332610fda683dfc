"""placeholder: owned by the audit work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class AuditEvent:
    """placeholder."""
