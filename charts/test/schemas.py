"""Rendered objects against the schemas of Kubernetes and of the CRDs."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
from cloudcoil.models.prometheus_operator import v1 as monitoring
from kubernetes_validate import utils as kubernetes
from pydantic import ValidationError

HERE = Path(__file__).parent
OLDEST = (1, 28)
Object = dict[str, Any]

kubernetes.schema_contents = functools.cache(kubernetes.schema_contents)  # or it reads megabytes for every object


def versions() -> list[str]:
    """The releases of Kubernetes that are checked."""
    return [v for v in kubernetes.all_versions() if tuple(map(int, v.split(".")[:2])) >= OLDEST]


def label(o: Object) -> str:
    return f"{o['kind']}/{o['metadata']['name']}"


def core(objects: list[Object]) -> list[str]:
    """Kubernetes' own kinds, unknown fields included, on every release."""
    problems = []
    for version in versions():
        for o in objects:
            try:
                kubernetes.validate(o, version, strict=True)
            except kubernetes.ValidationError as error:
                problems.append(f"{version}: {label(o)}: {'.'.join(map(str, error.path))}: {error.message}")
    return problems


def custom(objects: list[Object]) -> list[str]:
    """ServiceMonitor, PodMonitor, PrometheusRule by the operator's models; HTTPRoute by what we know of it."""
    problems = []
    route = jsonschema.Draft202012Validator(json.loads((HERE / "httproute.schema.json").read_text()))
    for o in objects:
        if o["kind"] == "HTTPRoute":
            problems += [f"{label(o)}: {e.json_path}: {e.message}" for e in route.iter_errors(o)]
            continue
        try:
            getattr(monitoring, o["kind"]).model_validate(o)
        except ValidationError as error:
            problems += [f"{label(o)}: {e['loc']}: {e['msg']}" for e in error.errors()]
    return problems


def node(objects: list[Object], modules: Path) -> list[str]:
    """The same kinds by the real CRD schemas, which come as Node packages in ``modules``."""
    script = modules / "crds.mjs"
    script.write_text((HERE / "crds.mjs").read_text())
    lines = "\n".join(json.dumps(o) for o in objects)
    done = subprocess.run(["node", script], input=lines, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() + ([done.stderr.strip()] if done.returncode else [])
