"""A real Valkey for the whole session, on 127.0.0.1 and a free port, stopped at its end; a cluster of three for modules that ask."""

import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from clustered import PARTITIONS, State
from valkey_cluster import ValkeyCluster

from tastemaker import context
from tastemaker.config import Settings, StateSettings
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys
from tastemaker.state.server import EmbeddedValkey

_catalogues = itertools.count()


@pytest.fixture(scope="session")
def valkey_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose embedded Valkey runs."""
    home = Home.make(tmp_path_factory.mktemp("valkey") / "home")
    server = EmbeddedValkey(home)
    server.start()
    yield home
    server.stop()


@pytest.fixture
def state(valkey_home: Home) -> Iterator[State]:
    """The session's Valkey with an empty catalogue of 4 partitions."""
    url = EmbeddedValkey(valkey_home).running_url()
    assert url is not None
    settings = Settings(
        catalogue=f"test-{next(_catalogues)}",
        home=valkey_home.root,
        state=StateSettings(partitions=4, history_length=5, stream_max_length=1000),
    )
    client = connect(url)
    yield State(client, open_keys(client, settings), valkey_home, settings, url)
    client.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Three nodes."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def clustered(cluster: ValkeyCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[State]:
    """The cluster with an empty catalogue of 16 partitions."""
    home = Home.make(tmp_path / "home")
    settings = Settings(
        catalogue=f"c-{zlib.crc32(request.node.name.encode())}",
        home=home.root,
        state=StateSettings(partitions=PARTITIONS, url=cluster.url),
    )
    with connect(cluster.url) as client:
        yield State(client, open_keys(client, settings), home, settings, cluster.url)


@pytest.fixture
def command_line(state: State) -> Iterator[None]:
    """Commands that run in this process read the settings of `state`."""
    before = context.settings()
    context.use(state.settings)
    yield
    context.use(before)
