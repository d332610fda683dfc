"""From what a backend lists to entries of the catalogue: what may be shown, under which name, and what may not.

An entry that is left out harms none of its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp.shared.inbound import X_MCP_HEADER_KEY, find_invalid_x_mcp_header, x_mcp_header_map

from gateway.definitions.cleaning import Unclean, clean
from gateway.definitions.hidden import is_clean
from gateway.definitions.lock import NAMED_BY, Drift, Lock, drift
from gateway.definitions.schemas import MAX_DEPTH, Unusable, compiled, refuse_bomb, refuse_depth
from gateway.definitions.structure import Schema, rebuilt
from gateway.definitions.work import Unbounded
from gateway.likeness import LOOKS
from gateway.models import Entry, Kind, Listing
from gateway.protocol.limits import described
from gateway.protocol.naming import is_valid, public_name
from gateway.protocol.strict_json import encode
from gateway.routes import Route

MAX_DEFINITION_BYTES = 200_000

KINDS: tuple[Kind, ...] = ("tool", "prompt", "resource", "template")

_UNENCODABLE = b"\\u00"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an operator should know of something that a backend offers; for logs and ``check``."""

    route: str
    kind: Kind
    name: str
    reason: str


@dataclass(slots=True)
class Findings:
    """What was found while entries were made: what is left out, what is shown without a part of it, and what is not
    as pinned.
    """

    omitted: list[Finding] = field(default_factory=list)
    cleaned: list[Finding] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)


@dataclass(slots=True)
class Entries:
    """Of one route or of several: for each kind, public names to entries in listing order; and those that would be
    there if their definitions were the pinned ones.
    """

    shown: dict[Kind, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    quarantined: dict[Kind, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})


class _Unfit(ValueError):  # noqa: N818 - a property of the definition
    """The entry is left out; ``str()`` says why."""


def entries_of(route: Route, listing: Listing, prefix: str, findings: Findings, lock: Lock | None = None) -> Entries:
    """What of a listing is exposed. Without a ``lock`` nobody looks at pins."""
    offered: dict[Kind, tuple[Mapping[str, Any], ...]] = {
        "tool": listing.tools,
        "prompt": listing.prompts,
        "resource": listing.resources,
        "template": listing.templates,
    }
    maker = _Maker(route, listing, prefix, findings, lock)
    for kind in KINDS:
        maker.make(kind, offered[kind])
    return maker.entries


class _Maker:
    """Makes the entries of one route."""

    def __init__(self, route: Route, listing: Listing, prefix: str, findings: Findings, lock: Lock | None) -> None:
        self.entries = Entries()
        self._route = route
        self._over_http = listing.over_http
        self._prefix = prefix
        self._findings = findings
        self._looks: dict[tuple[Kind, str], str] = {}
        self._pins = route.effective.pins
        self._lock = lock

    def make(self, kind: Kind, definitions: tuple[Mapping[str, Any], ...]) -> None:
        for definition in definitions:
            name = definition.get(NAMED_BY[kind])
            try:
                entry = self._entry(kind, name, definition)
                if entry is not None:
                    self._place(kind, entry, definition)
            except (_Unfit, Unclean) as unfit:
                self._findings.omitted.append(Finding(self._route.name, kind, _shown(name), str(unfit)))

    def _place(self, kind: Kind, entry: Entry, definition: Mapping[str, Any]) -> None:
        """Raises: _Unfit: the name is taken."""
        shown, quarantined = self.entries.shown[kind], self.entries.quarantined[kind]
        if entry.name in shown or entry.name in quarantined:
            raise _Unfit(f"a second {kind} of this name")
        if kind in ("tool", "prompt"):
            self._refuse_look_alike(kind, entry.backend_name)
        drifted, pins = None, self._pins.of(kind)
        if pins != "off" and self._lock is not None:
            blocks = pins == "block"
            drifted = drift(self._lock, self._route.name, entry.name, definition, withheld=blocks, kind=kind)
        if drifted is not None:
            self._findings.drifts.append(drifted)
        (quarantined if drifted is not None and drifted.withheld else shown)[entry.name] = entry

    def _refuse_look_alike(self, kind: Kind, name: str) -> None:
        """Raises: _Unfit: it could be taken for another, or slips past a rule that is meant for such a name."""
        meant = self._route.rule_of_likeness(name, kind)
        if meant is not None:
            raise _Unfit(f"it looks like {meant}, which has a rule that does not hold for it; give it one of its own")
        for look in LOOKS:
            other = self._looks.setdefault((kind, look(name)), name)
            if other != name:
                raise _Unfit(f"its name looks like that of {_shown(other)}")

    def _entry(self, kind: Kind, name: Any, definition: Mapping[str, Any]) -> Entry | None:
        """None where no rule exposes it.

        Raises:
            _Unfit, Unclean: it is left out.
        """
        if not isinstance(name, str) or not name:
            raise _Unfit(f"it has no {NAMED_BY[kind]}")
        policy = self._route.policy_for(name, kind)
        if policy.hidden or policy.scopes is None:
            return None
        shown, removed = _presentable(definition)
        if kind == "tool":
            _refuse_unusable(name, shown, over_http=self._over_http)
        entry = _made(self._route, kind, name, shown, self._prefix)
        if kind == "tool":
            _refuse_schemas(entry)
        if removed:
            self._findings.cleaned.append(Finding(self._route.name, kind, _shown(name), removed))
        return entry


def _shown(name: Any) -> str:
    """A name as logs and terminals may have it."""
    text = str(name)[:128]
    return text if text.isprintable() else ascii(text)


def _presentable(definition: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    try:
        encoded = encode(definition)
    except UnicodeEncodeError:
        encoded = _UNENCODABLE  # a lone surrogate
    except RecursionError:
        raise _Unfit(f"it is nested deeper than {MAX_DEPTH} levels") from None
    if len(encoded) > MAX_DEFINITION_BYTES:
        raise _Unfit(f"it is over {MAX_DEFINITION_BYTES} bytes")
    try:
        if encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH or encoded == _UNENCODABLE:
            refuse_depth(definition)
    except Unbounded as error:
        raise _Unfit(str(error)) from None
    return (definition, "") if is_clean(encoded) else clean(definition)


def _refuse_schemas(tool: Entry) -> None:
    try:
        compiled(tool.input_schema)
    except Unusable as error:
        raise _Unfit(f"its input schema cannot judge arguments: {error}") from None
    try:
        refuse_bomb(tool.definition.get("outputSchema"))
    except Unusable as error:
        raise _Unfit(f"its output schema is refused: {error}") from None


def _refuse_unusable(name: str, definition: Mapping[str, Any], *, over_http: bool) -> None:
    if not is_valid(name):
        raise _Unfit("its name is not 1-128 characters of A-Z a-z 0-9 _ . -")
    if not isinstance(definition.get("inputSchema"), dict):
        raise _Unfit("it has no input schema")
    if not isinstance(definition.get("description"), str | None):
        raise _Unfit("its description is no text")
    if over_http and _is_annotated(definition["inputSchema"]):
        annotation = find_invalid_x_mcp_header(definition["inputSchema"])
        if annotation:
            raise _Unfit(f"its x-mcp-header annotation is invalid: {annotation}")


def _made(route: Route, kind: Kind, name: str, definition: Mapping[str, Any], prefix: str) -> Entry:
    public = {**definition, "name": public_name(prefix, name)} if kind in ("tool", "prompt") else definition
    schema = definition["inputSchema"] if kind == "tool" else {}
    annotated = kind == "tool" and _is_annotated(schema)
    mirrored = annotated and find_invalid_x_mcp_header(schema) is None
    if annotated and not mirrored:
        # Of a stdio backend it means nothing, and over HTTP every client would drop the tool for it.
        schema = rebuilt(schema, _without_annotation)
        public = {**public, "inputSchema": schema}
    policy = route.policy_for(name, kind)
    told = described(public, policy) if policy.described and kind == "tool" else public
    trusted = route.backend.trust_annotations and _harmless(definition.get("annotations"))
    return Entry(
        name=public["name"] if kind in ("tool", "prompt") else name,
        backend_name=name,
        route=route.name,
        definition=public,
        rendered=encode(told),
        input_schema=encode(schema),
        policy=policy,
        param_headers=x_mcp_header_map(schema) if mirrored else {},
        idempotent=trusted if kind == "tool" else True,
        kind=kind,
    )


def _is_annotated(schema: Schema) -> bool:
    """Whether it may have ``x-mcp-header`` somewhere; to look at every place takes much longer."""
    return X_MCP_HEADER_KEY.encode() in encode(schema)


def _without_annotation(schema: Schema) -> Schema:
    return {name: part for name, part in schema.items() if name != X_MCP_HEADER_KEY}


def _harmless(annotations: Any) -> bool:
    if not isinstance(annotations, dict):
        return False
    return annotations.get("readOnlyHint") is True or annotations.get("idempotentHint") is True
