"""Everything about the chart that can be known without a cluster.

Lints, renders with the real Helm engine, checks the objects against the schemas of Kubernetes 1.28 and later and of the
CRDs, compares golden files, and tries values that must be refused. ``--update`` rewrites golden files and the README.
With OPTIONAL=1 in the environment a missing tool is no failure.
"""

from __future__ import annotations

import base64
import difflib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CHART = HERE.parent / "mcp-gateway"
MODULES = Path(sys.prefix) / "chart-schemas"
GOLDEN = ("minimal", "production", "everything")
CUSTOM = ("monitoring.coreos.com/", "gateway.networking.k8s.io/")
SECRETS = {
    "GATEWAY_KEYS": base64.b64encode(bytes(range(32))).decode(),
    "GATEWAY_REDIS_URL": "rediss://redis:6379/0",
}
Object = dict[str, Any]


def missing(what: str) -> None:
    """Says what is missing and ends: badly, unless OPTIONAL=1."""
    print(f"charts: {what}")
    raise SystemExit(0 if os.environ.get("OPTIONAL") == "1" else 1)


def need_python() -> None:
    """The packages of requirements.txt, in this interpreter's environment."""
    stamp = Path(sys.prefix) / ".charts"
    wanted = (HERE / "requirements.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=False).returncode:
        missing("pip could not install charts/test/requirements.txt")
    stamp.write_text(wanted)


def need_node() -> None:
    """The CRD schemas of package.json, beside the environment."""
    wanted = (HERE / "package.json").read_text()
    stamp = MODULES / "package.json"
    if stamp.exists() and stamp.read_text() == wanted and (MODULES / "node_modules").exists():
        return
    if not shutil.which("npm"):
        missing("npm is missing; HTTPRoute and monitors are checked with Node packages")
    MODULES.mkdir(exist_ok=True)
    stamp.write_text(wanted)
    npm = ["npm", "install", "--prefix", MODULES, "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    if subprocess.run(npm, check=False).returncode:
        shutil.rmtree(MODULES)
        missing("npm could not install charts/test/package.json")


def combinations() -> dict[str, Object]:
    """Name to values: every file of values/ and every case."""
    import helm_python as helm
    from cases import COMBINATIONS

    files = {p.stem: helm.values_from_yaml(p.read_text()) for p in sorted((CHART / "values").glob("*.yaml"))}
    return {**files, **COMBINATIONS}


def render(values: Object) -> str:
    """All objects as one YAML text, in the order of their templates.

    Raises:
        helm_python.HelmError: the values were refused.
    """
    import helm_python as helm

    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="gateway", namespace="mcp")
    texts = [t.strip().removeprefix("---\n") for n, t in sorted(files.items()) if not n.endswith("NOTES.txt")]
    return "".join(f"---\n{text}\n" for text in texts if text)


def objects(text: str) -> list[Object]:
    import yaml

    return [o for o in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if o]


def lint() -> list[str]:
    import helm_python as helm

    problems = []
    for name, values in combinations().items():
        report = helm.lint(CHART, values, strict=True)
        bad = [m for m in report["messages"] if m["severity"] > 1]
        problems += [f"{name}: {m['path']}: {m.get('message') or m.get('error')}" for m in bad]
    return problems


def values_agree() -> list[str]:
    """The schema knows every value and no more, and leaves no object open by oversight."""
    import json

    import yaml

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    problems: list[str] = []

    def compare(spec: Object, value: Object, path: str) -> None:
        known = set(spec.get("properties", {})) - {"global"}
        problems.extend(f"values.schema.json: {path}{key} is not in values.yaml" for key in known - set(value))
        problems.extend(f"values.yaml: {path}{key} is not in the schema" for key in set(value) - known)
        for key in known & set(value):
            inner = spec["properties"][key]
            if "properties" in inner and value[key] and path + key not in ("resources", "affinity"):
                compare(inner, value[key], f"{path}{key}.")

    compare(schema, values, "")
    return problems + [f"values.schema.json: {path} is open" for path in open_objects(schema, "")]


def open_objects(spec: Any, path: str) -> Iterator[str]:
    """Objects of a schema that name their properties and take others too."""
    if isinstance(spec, dict):
        if "properties" in spec and spec.get("type") == "object" and spec.get("additionalProperties") is not False:
            yield path or "/"
        for key, inner in spec.items():
            yield from open_objects(inner, f"{path}/{key}")


def readme() -> list[str]:
    import table

    return table.check("--update" in sys.argv)


def holds() -> list[str]:
    from invariants import broken

    return [f"{name}: {p}" for name, values in combinations().items() for p in broken(objects(render(values)))]


def unique_objects() -> list[Object]:
    """Every different object of all combinations, once."""
    import json

    found = {json.dumps(o, sort_keys=True): o for values in combinations().values() for o in objects(render(values))}
    return list(found.values())


def accepted() -> list[str]:
    """The gateway itself takes the environment that pods get, and the routes of the files in values/."""
    from gateway.errors import ConfigError
    from gateway.routes.loader import parse
    from gateway.settings import Settings
    from invariants import pods

    problems = []
    for name, values in combinations().items():
        rendered = objects(render(values))
        environ = {
            e["name"]: e.get("value") or SECRETS.get(e["name"], "secret")
            for _, labels, spec in pods(rendered)
            if labels.get("app.kubernetes.io/component") == "gateway"
            for e in spec["containers"][0]["env"]
        }
        try:
            Settings.load(environ)
            for o in rendered:
                if "routes.yaml" in o.get("data", {}) and (CHART / "values" / f"{name}.yaml").exists():
                    parse(o["data"]["routes.yaml"], source=name, environ=environ)
        except ConfigError as error:
            problems += [f"{name}: {p}" for p in error.problems]
    return problems


def core_schemas() -> list[str]:
    import schemas

    return schemas.core([o for o in unique_objects() if not o["apiVersion"].startswith(CUSTOM)])


def custom_schemas() -> list[str]:
    import schemas

    found = [o for o in unique_objects() if o["apiVersion"].startswith(CUSTOM)]
    return schemas.custom(found) + schemas.node(found, MODULES)


def golden() -> list[str]:
    problems: list[str] = []
    for name in GOLDEN:
        path, text = HERE / "golden" / f"{name}.yaml", render(combinations()[name])
        if "--update" in sys.argv:
            path.write_text(text)
        old = path.read_text() if path.exists() else ""
        problems += difflib.unified_diff(old.splitlines(), text.splitlines(), str(path.name), "rendered", lineterm="")
    return [*problems, "golden files are stale; run charts/test/run.py --update"] if problems else []


def refused() -> list[str]:
    import helm_python as helm
    from cases import BAD

    problems = []
    for values, expected in BAD:
        try:
            render(values)
            problems.append(f"accepted, but should name {expected!r}: {values}")
        except helm.HelmError as error:
            if expected not in str(error):
                problems.append(f"should name {expected!r}: {error}")
    return problems


def notes() -> list[str]:
    """NOTES show three commands, and the minimal chart stays small."""
    import helm_python as helm

    with helm.Chart.load(CHART) as chart:
        files = chart.render(combinations()["minimal"], name="gateway", namespace="mcp")
    commands = [line for line in files["mcp-gateway/templates/NOTES.txt"].splitlines() if line.startswith("  kubectl")]
    kinds = sorted(o["kind"] for o in objects(render(combinations()["minimal"])))
    problems = [] if len(commands) == 3 else [f"NOTES.txt has {len(commands)} commands"]
    expected = ["ConfigMap", "Deployment", "Service", "Service", "ServiceAccount"]
    return problems + ([] if kinds == expected else [f"minimal values render {kinds}"])


STEPS: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ("lint, strict", lint),
    ("values.yaml agrees with the schema", values_agree),
    ("README has every value", readme),
    ("restricted, graceful, connected, closed", holds),
    ("minimal is small", notes),
    ("the gateway takes what pods get", accepted),
    ("Kubernetes 1.28 and later", core_schemas),
    ("ServiceMonitor, PodMonitor, PrometheusRule, HTTPRoute", custom_schemas),
    ("golden files", golden),
    ("bad values are refused by name", refused),
)


def main() -> int:
    """Runs the steps; 1 when one found a problem."""
    need_python()
    need_node()
    failed = 0
    for name, step in STEPS:
        start = time.monotonic()
        problems = step()
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '} {name} ({time.monotonic() - start:.1f} s)")
        for problem in problems:
            print(f"       {problem}")
    from cases import BAD

    print(f"{len(combinations())} combinations, {len(BAD)} bad values, {failed} steps failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
