"""docs/start-compose.md, run: build, start, call over both replicas, kill one under load, stop, leave nothing.

Needs Debian 12 and root; installs the rest. With OPTIONAL=1 something missing is no failure. ``--keep`` leaves it all
up and says where.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import ROOT, Machine, Missing, left, need_debian, run
from page import commands, shell

HERE = Path(__file__).resolve().parent
CACHE = ROOT / ".venv-slow" / "compose"
BIN = CACHE / "bin"
PORTS = (8080, 9090, 9410)
REPLICAS = 2


def main() -> int:
    """The exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is taken down
    try:
        need_debian()
        _enter_environment()
        _need_ports()
        return _test()
    except Missing as missing:
        print(f"compose-test: {missing}")
        return 0 if os.environ.get("OPTIONAL") == "1" else 1
    except (AssertionError, TimeoutError, subprocess.SubprocessError) as error:
        print(f"compose-test: FAILED: {error}")
        return 1


def _enter_environment() -> None:
    """Go on in an environment of our own, made here if need be."""
    if Path(sys.prefix) == CACHE:
        return
    wanted = HERE / "requirements.txt"
    stamp = CACHE / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        try:
            run([sys.executable, "-m", "venv", CACHE])
            run([BIN / "python", "-m", "pip", "install", "--quiet", "-r", wanted])
        except subprocess.CalledProcessError as error:
            raise Missing("no virtual environment with tests/compose/requirements.txt could be made") from error
        stamp.write_text(wanted.read_text())
    sys.stdout.flush()
    os.execv(BIN / "python", [str(BIN / "python"), str(HERE / "run.py"), *sys.argv[1:]])


def _need_ports() -> None:
    listening = Path("/proc/net/tcp").read_text()
    for port in PORTS:
        if re.search(rf":{port:04X} 00000000:0000 0A ", listening):
            raise Missing(f"port {port} is in use")


def _test() -> int:
    import yaml

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    passed, keep = 0, "--keep" in sys.argv
    machine = Machine()
    machine.environment["PATH"] = f"{BIN}:{machine.environment['PATH']}"
    try:
        for check in CHECKS[:-1] if keep else CHECKS:
            with _timed(check.__doc__ or check.__name__):
                check(machine, compose)
            passed += 1
    except AssertionError:
        _show_unhealthy(machine)
        raise
    finally:
        rest = [] if keep else machine.close()
    if keep:
        where = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")
        print("kept: export " + " ".join(f"{name}={machine.environment[name]}" for name in where))
    if rest:
        raise AssertionError(f"left behind: {', '.join(rest)}")
    print(f"{passed} passed, 0 failed")
    return 0


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)


def files_are_valid(machine: Machine, compose: dict[str, Any]) -> None:
    """the compose file fits its schema, hadolint accepts the Dockerfiles"""
    run([BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"])
    listed = [ROOT / "Dockerfile", *sorted((ROOT / "examples").glob("**/Dockerfile"))]
    run([BIN / "hadolint", *listed])


def images_are_built(machine: Machine, compose: dict[str, Any]) -> None:
    """base images made of packages, ours built from their Dockerfiles"""
    import images

    images.bases(machine, compose, CACHE / "bases")
    images.ours(machine, compose)


def image_is_small(machine: Machine, compose: dict[str, Any]) -> None:
    """the gateway adds under 200 MB to its base, has no pip of its own and says what it needs"""
    import images

    base, ours = (_size(machine, tag) for tag in (images.PYTHON_TAG, "mcp-gateway:dev"))
    assert ours - base < 200_000_000, f"{(ours - base) / 1e6:.0f} MB over the base"
    command = ["podman", "run", "--rm", "--read-only", "--network", "none", "mcp-gateway:dev"]
    bare = subprocess.run(command, env=machine.environment, text=True, capture_output=True, check=False, timeout=left())
    assert bare.returncode == 2, bare.stderr
    assert "/etc/mcp-gateway/routes.yaml" in bare.stderr, bare.stderr
    code = "import importlib.util as u; raise SystemExit(u.find_spec('pip') is not None)"
    machine.podman("run", "--rm", "--network", "none", "--entrypoint", "python", "mcp-gateway:dev", "-c", code)
    print(f"          {(ours - base) / 1e6:.0f} MB over the base")


def page_holds(machine: Machine, compose: dict[str, Any]) -> None:
    """the commands of docs/start-compose.md, one after the other"""
    from calls import until

    start, token, call, echo, tools, _stop = commands()
    shell(machine, start)
    until(lambda: _healthy(machine) == len(compose["services"]) + REPLICAS - 1, "every container is healthy")
    assert '"checkout"' in shell(machine, token + call), "deploy__list_services gave no services"
    assert "Echo: hello" in shell(machine, token + echo), "everything__echo did not echo"
    listed = shell(machine, token + tools)
    assert "deploy__list_services" in listed, listed
    for hidden in ("everything__get-env", "deploy__start_deploy"):
        assert hidden not in listed, f"{hidden} is listed"


def containers_are_hardened(machine: Machine, compose: dict[str, Any]) -> None:
    """no container is root, can write to its image or has capabilities"""
    for each in json.loads(machine.podman("inspect", *_containers(machine))):
        host, name = each["HostConfig"], each["Name"]
        assert each["Config"]["User"].split(":")[0] not in ("", "0", "root"), f"{name} is root"
        assert host["ReadonlyRootfs"], f"{name} can write to its image"
        assert not each["EffectiveCaps"], f"{name} has capabilities: {each['EffectiveCaps']}"
        assert "no-new-privileges" in host["SecurityOpt"], f"{name} may gain privileges"
        assert all(host[limit] for limit in ("Memory", "PidsLimit", "NanoCpus")), f"{name} has no limits"


def limit_is_shared(machine: Machine, compose: dict[str, Any]) -> None:
    """both replicas serve, and a limit of 10 lets 10 of 16 calls through them pass; Prometheus has both"""
    from calls import outcome, prometheus, until

    until(lambda: sum(prometheus('up{job="mcp-gateway"}').values()) == REPLICAS, "Prometheus has both replicas")
    token = _token(machine)
    outcomes = [outcome(token, "everything__get-sum", {"a": 1, "b": 2}) for _ in range(16)]
    counted = {code: outcomes.count(code) for code in set(outcomes)}
    assert counted == {"ok": 10, "rate_limited": 6}, counted
    query = 'sum by (instance) (mcp_gateway_requests_total{tool="everything__get-sum"})'
    until(lambda: sum(prometheus(query).values()) == 16, "Prometheus counts 16 calls")
    served = prometheus(query)
    assert len(served) == REPLICAS, served
    assert min(served.values()) >= 2, served


def replica_may_die(machine: Machine, compose: dict[str, Any]) -> None:
    """a replica is killed under load: no call fails that the client tries again"""
    from calls import Load, prometheus, until

    load = Load(_token(machine))
    load.start()
    try:
        until(lambda: load.answered > 60, "the load runs")
        machine.podman("kill", "--signal", "KILL", "mcp-gateway_gateway_1")
        mark, killed = load.answered, time.monotonic()
        until(lambda: load.answered > mark + 150, "calls go on after the kill")
    finally:
        load.stop()
    assert not load.failed, f"failed for good: {dict(load.failed)}"
    after = time.monotonic() - killed
    print(
        f"          {load.answered} calls, {load.retried} tried again, 0 failed; 150 within {after:.1f} s of the kill"
    )
    machine.podman("start", "mcp-gateway_gateway_1")
    until(lambda: _healthy(machine) == len(_containers(machine)), "the replica is back")
    until(lambda: sum(prometheus('up{job="mcp-gateway"}').values()) == REPLICAS, "Prometheus has both again")


def stops_clean(machine: Machine, compose: dict[str, Any]) -> None:
    """docker compose down: no container and no network is left"""
    shell(machine, commands()[-1])
    assert not _containers(machine), "containers are left"
    assert "mcp-gateway" not in machine.podman("network", "ls", "--format", "{{.Name}}"), "a network is left"


CHECKS: tuple[Callable[[Machine, dict[str, Any]], None], ...] = (
    files_are_valid,
    images_are_built,
    image_is_small,
    page_holds,
    containers_are_hardened,
    limit_is_shared,
    replica_may_die,
    stops_clean,
)


def _token(machine: Machine) -> str:
    return shell(machine, "sh examples/compose/token.sh deploy:read everything:use").strip()


def _containers(machine: Machine) -> list[str]:
    return machine.podman("ps", "--all", "--format", "{{.Names}}").split()


def _healthy(machine: Machine) -> int:
    return len(_containers(machine)) - len(_unhealthy(machine))


def _unhealthy(machine: Machine) -> list[str]:
    """podman runs health checks by systemd timers; without systemd they are run here."""
    command = ["podman", "healthcheck", "run"]
    return [
        name
        for name in _containers(machine)
        if subprocess.run([*command, name], env=machine.environment, capture_output=True, check=False).returncode
    ]


def _show_unhealthy(machine: Machine) -> None:
    for name in _unhealthy(machine):
        command = ["podman", "logs", "--tail", "5", name]
        logs = subprocess.run(command, env=machine.environment, text=True, capture_output=True, check=False)
        print(f"{name} is not healthy:\n{logs.stdout}{logs.stderr}", flush=True)


def _size(machine: Machine, tag: str) -> int:
    return int(machine.podman("image", "inspect", "--format", "{{.Size}}", tag))


if __name__ == "__main__":
    raise SystemExit(main())
