"""What replicas see of the registry, through a real Valkey."""

import asyncio
import subprocess
import sys
import threading

import pytest

from tastemaker.bundle.manifest import BundleRef
from tastemaker.errors import StateError
from tastemaker.home import Home
from tastemaker.registry.live import LiveAliases, LiveVersion, Watcher, read_live, read_live_async, write_live
from tastemaker.registry.versions import Named
from tastemaker.state.connection import connect, connect_async
from tastemaker.state.keys import Keys
from tastemaker.state.server import EmbeddedValkey


class Version:
    """What write_live reads of a registry's version; the real one needs MLflow's seconds to import."""

    def __init__(self, number, bundle=None):
        bundle = bundle or number
        self.number, self.uri, self.sha256 = number, f"manifests/default/{bundle:012x}.json", f"{bundle:064x}"


class Registry:
    """Answers with what it is told, and notes what it is asked with."""

    def __init__(self, **aliases):
        self.aliases = {alias: number and Version(number) for alias, number in aliases.items()}
        self.asked, self.seen = 0, []
        self.created_ms = 1

    def read_named(self, catalogue, seen):
        assert catalogue == "default"
        self.seen.append(seen)
        return Named(self.created_ms, dict(self.aliases))

    def note_outside_moves(self, catalogue):
        self.asked += 1
        return []


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    server = EmbeddedValkey(Home.make(tmp_path_factory.mktemp("valkey") / "home"))
    server.start()
    yield server.running_url()
    server.stop()


@pytest.fixture
def client(url):
    with connect(url) as client:
        client.flushall()
        yield client


KEYS = Keys("default", 64)


def test_nothing_is_live_before_the_watcher_wrote(client):
    assert read_live(client, KEYS) is None


def test_replicas_read_what_the_watcher_wrote(client, url):
    written = Watcher(Registry(champion=1, challenger=2), client, KEYS).poll()
    assert written == read_live(client, KEYS)
    assert written.generation == 1
    assert written.aliases["challenger"].version == 2
    assert written.aliases["challenger"].ref == BundleRef("manifests/default/000000000002.json", f"{2:064x}")

    async def read():
        connection = connect_async(url)
        try:
            return await read_live_async(connection, KEYS)
        finally:
            await connection.aclose()

    assert asyncio.run(read()) == written


def test_the_generation_grows_only_when_an_alias_moves(client):
    generations = [
        Watcher(Registry(**aliases), client, KEYS).poll().generation
        for aliases in (
            {"champion": 1},
            {"champion": 1},
            {"champion": 2},
            {"champion": 2},
            {"champion": 1},
            {},
        )
    ]
    assert generations == [1, 1, 2, 2, 3, 4]


def test_an_alias_of_no_bundle_goes_on_naming_what_it_did_and_holds_up_no_other(client):
    Watcher(Registry(champion=1), client, KEYS).poll()
    live = Watcher(Registry(champion=None, challenger=2, shadow=None), client, KEYS).poll()
    assert {alias: version.version for alias, version in live.aliases.items()} == {
        "champion": 1,
        "challenger": 2,
    }


def test_the_history_is_looked_at_when_an_alias_moved_and_at_no_other_time(client):
    registry = Registry(champion=1)
    watcher = Watcher(registry, client, KEYS)
    for _ in range(3):
        watcher.poll()
    assert registry.asked == 1
    registry.aliases = {"champion": Version(2)}
    watcher.poll()
    assert registry.asked == 2


def test_each_look_is_told_what_the_one_before_it_saw(client):
    registry = Registry(champion=1, challenger=None)
    watcher = Watcher(registry, client, KEYS)
    first = Named(1, dict(registry.aliases))
    watcher.poll()
    watcher.poll()
    assert registry.seen == [None, first]
    registry.aliases = {"champion": Version(2)}
    watcher.poll()
    watcher.poll()
    assert registry.seen == [None, first, first, Named(1, dict(registry.aliases))]


def test_a_number_that_means_another_bundle_now_is_followed(client):
    registry = Registry(champion=1)
    watcher = Watcher(registry, client, KEYS)
    watcher.poll()
    registry.created_ms, registry.aliases = 2, {"champion": Version(1, bundle=9)}
    live = watcher.poll()
    assert (live.generation, live.aliases["champion"].version) == (2, 1)
    assert live.aliases["champion"].sha256 == f"{9:064x}"
    assert registry.asked == 2  # the history was looked at as well


def test_watchers_at_once_lose_no_generation(client, url):
    def watch(first):
        with connect(url) as own:
            for number in range(first, first + 30):
                write_live(own, KEYS, {"champion": Version(number)})

    threads = [threading.Thread(target=watch, args=(first,)) for first in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_live(client, KEYS).generation == 60


def test_something_else_under_the_key_is_named(client):
    client.set(KEYS.live, '{"generation": "x"}')
    with pytest.raises(StateError, match=r"tm:\{default\}:live does not hold live aliases.*delete the key"):
        read_live(client, KEYS)


def test_a_server_that_is_gone_is_named():
    with pytest.raises(StateError, match="cannot read the live aliases"):
        read_live(connect("redis://127.0.0.1:9", timeout_seconds=0.5), KEYS)


def test_what_is_live_survives_its_own_json():
    live = LiveAliases(generation=3, aliases={"champion": LiveVersion(version=1, uri="u", sha256="s")})
    assert LiveAliases.model_validate_json(live.model_dump_json()) == live


def test_replicas_need_neither_mlflow_nor_faiss_nor_torch_to_import_it():
    code = (
        "import sys, tastemaker.registry.live, tastemaker.bundle.reader;"
        "print([m for m in ('mlflow', 'faiss', 'torch', 'pandas', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
