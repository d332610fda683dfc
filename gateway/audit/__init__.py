"""What is recorded: the event, its redaction, the line it becomes, the chain of lines and how a chain is judged.

Pure: bytes and values in, bytes and values out. Threads and files are in ``gateway/stores/audit_*.py``.
"""

from gateway.audit.event import AuditEvent, Kind
from gateway.audit.heads import HEADS_KEPT, Head, HeadError, dump_heads, parse_heads, render_heads, sign, signed
from gateway.audit.records import START, ArgumentsMode, Encoder, Link, arguments_digest, line_hash
from gateway.audit.redaction import parse_path
from gateway.audit.results import ResultsMode, result_digest
from gateway.audit.secret_text import REDACTED
from gateway.audit.verifier import OpenIntent, Problem, Report, Verifier

__all__ = [
    "HEADS_KEPT",
    "REDACTED",
    "START",
    "ArgumentsMode",
    "AuditEvent",
    "Encoder",
    "Head",
    "HeadError",
    "Kind",
    "Link",
    "OpenIntent",
    "Problem",
    "Report",
    "ResultsMode",
    "Verifier",
    "arguments_digest",
    "dump_heads",
    "line_hash",
    "parse_heads",
    "parse_path",
    "render_heads",
    "result_digest",
    "sign",
    "signed",
]
