"""What must hold for every rendering, whatever the values: pods are restricted, and objects find each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [o for o in objects if o["kind"] in kinds]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, labels and spec of every pod."""
    for o in of_kind(objects, "Deployment"):
        template = o["spec"]["template"]
        yield o["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for o in of_kind(objects, "Pod"):
        yield o["metadata"]["name"], o["metadata"]["labels"], o["spec"]


def restricted(objects: list[Object]) -> Iterator[str]:
    """Pod Security Standard ``restricted``, and a read-only root without a token on top."""
    for name, _, spec in pods(objects):
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0:
            yield f"{name}: may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token"
        allowed = {"name", "configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        yield from (f"{name}: volume {v['name']} is not allowed" for v in spec.get("volumes", []) if set(v) - allowed)
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        yield from (
            f"{name}/{c['name']}: not restricted" for c in spec["containers"] if c.get("securityContext") != wanted
        )
        yield from (f"{name}/{c['name']}: no memory limit" for c in spec["containers"] if not c["resources"]["limits"])


def graceful(objects: list[Object]) -> Iterator[str]:
    """The kill comes after the drain, by the settings that the process really gets."""
    for name, labels, spec in pods(objects):
        if labels.get("app.kubernetes.io/component") != "gateway":
            continue
        env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
        drain = int(env["GATEWAY_DRAIN_DELAY_SECONDS"]) + int(env["GATEWAY_DRAIN_SECONDS"])
        if spec["terminationGracePeriodSeconds"] < drain + 15:
            yield f"{name}: killed before it has drained"
        if len(env) != len(spec["containers"][0]["env"]):
            yield f"{name}: a variable is set twice"


def selects(selector: Object, labels: Object) -> bool:
    return selector.items() <= labels.items()


def connected(objects: list[Object]) -> Iterator[str]:
    """Selectors select exactly one kind of pod, named ports and referenced objects exist."""
    everyone = list(pods(objects))
    for o in objects:
        spec, label = o.get("spec", {}), f"{o['kind']}/{o['metadata']['name']}"
        selector = spec.get("selector") or spec.get("podSelector")
        if o["kind"] == "ServiceMonitor":
            chosen = [
                s for s in of_kind(objects, "Service") if selects(selector["matchLabels"], s["metadata"]["labels"])
            ]
            if [s["spec"]["ports"][0]["name"] for s in chosen] != [spec["endpoints"][0]["port"]]:
                yield f"{label}: does not select the operations Service alone"
            continue
        if not selector:
            continue
        chosen = [p for _, labels, p in everyone if selects(selector.get("matchLabels", selector), labels)]
        if len(chosen) != 1:
            yield f"{label}: selects {len(chosen)} pods"
            continue
        ports = {p["name"] for c in chosen[0]["containers"] for p in c.get("ports", [])}
        used = [p["targetPort"] for p in spec.get("ports", [])] + [
            p["port"] for p in spec.get("podMetricsEndpoints", [])
        ]
        yield from (f"{label}: no port {p}" for p in used if p not in ports)
    yield from routed(objects)


def routed(objects: list[Object]) -> Iterator[str]:
    """What leads to a Service leads to the one for agents; what scales names a Deployment."""
    services = {s["metadata"]["name"]: s for s in of_kind(objects, "Service")}
    targets = [
        (path["backend"]["service"]["name"], None)
        for o in of_kind(objects, "Ingress")
        for rule in o["spec"]["rules"]
        for path in rule["http"]["paths"]
    ] + [
        (ref["name"], ref["port"])
        for o in of_kind(objects, "HTTPRoute")
        for rule in o["spec"]["rules"]
        for ref in rule["backendRefs"]
    ]
    for name, port in targets:
        service = services.get(name)
        if service is None or service["spec"]["ports"][0]["name"] != "http":
            yield f"{name}: not the Service for agents"
        elif port not in (None, service["spec"]["ports"][0]["port"]):
            yield f"{name}: has no port {port}"
    deployments = {o["metadata"]["name"] for o in of_kind(objects, "Deployment")}
    for o in of_kind(objects, "HorizontalPodAutoscaler"):
        if o["spec"]["scaleTargetRef"]["name"] not in deployments:
            yield f"{o['metadata']['name']}: scales nothing"


def closed(objects: list[Object]) -> Iterator[str]:
    """No rule of a NetworkPolicy is open: an empty list of peers would mean everybody."""
    for o in of_kind(objects, "NetworkPolicy"):
        rules = [(r.get("from"), r) for r in o["spec"].get("ingress", [])] + [
            (r.get("to"), r) for r in o["spec"].get("egress", [])
        ]
        if any(not peers or not rule.get("ports") for peers, rule in rules):
            yield f"{o['metadata']['name']}: an open rule"


def secretless(objects: list[Object]) -> Iterator[str]:
    """The chart makes no Secret."""
    yield from (f"{o['metadata']['name']}: a Secret in the chart" for o in of_kind(objects, "Secret"))


def broken(objects: list[Object]) -> list[str]:
    """Everything that does not hold."""
    checks = (restricted, graceful, connected, closed, secretless)
    return [problem for check in checks for problem in check(objects)]
