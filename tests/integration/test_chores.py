"""What is done beside the streams, chore by chore, on a real Valkey."""

from collections.abc import Iterator

import pytest
import redis
from waiting import until

from tastemaker.config import Settings
from tastemaker.events.erasure import pending_erasures, request_erasure
from tastemaker.events.receipts import read_receipt
from tastemaker.features.feast_repo import repo_folder, write_repo
from tastemaker.features.projection import num_pending
from tastemaker.features.user_state import UserState
from tastemaker.home import Home
from tastemaker.state.connection import open_keys, open_state, url_of
from tastemaker_services.stream.chores import Chores

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=Home.make(tmp_path_factory.mktemp("chores") / "home").root)


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with open_state(settings, Home.open(settings.home)) as client:
        yield client


def test_a_requested_erasure_is_done_and_leaves_a_receipt(settings: Settings, client: redis.Redis) -> None:
    home, keys = Home.open(settings.home), open_keys(client, settings)
    client.set(keys.user("a"), UserState().encode())
    name = request_erasure(client, keys, "a")
    Chores(settings, home).erase()
    receipt = read_receipt(home, "default", name)
    assert receipt is not None
    assert (receipt.removed["records"], receipt.bundles) == (1, [])
    assert pending_erasures(client, keys) == {}


def test_marks_wait_until_there_is_a_repo_to_read_rows_by(settings: Settings, client: redis.Redis) -> None:
    home, keys = Home.open(settings.home), open_keys(client, settings)
    client.set(keys.user("a"), UserState().encode())
    client.sadd(keys.changed_users(keys.partition("a")), "a")
    chores = Chores(settings, home)
    chores.project()
    assert num_pending(client, keys) == {"user": 1, "item": 0}
    write_repo(repo_folder(home, "default"), "default", url_of(settings, home))
    chores.project()
    assert num_pending(client, keys) == {"user": 0, "item": 0}


def test_every_chore_is_taken_in_turn(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    chores = {name for name, found in vars(Chores).items() if callable(found) and not name.startswith("_")}
    chores -= {"start", "stop"}
    done: set[str] = set()
    monkeypatch.setattr("tastemaker_services.stream.chores.EVERY_SECONDS", 0.01)
    for name in chores:
        monkeypatch.setattr(Chores, name, lambda _, name=name: done.add(name))
    running = Chores(settings, Home.open(settings.home))
    running.start()
    try:
        until(lambda: done == chores, "all of them")
    finally:
        running.stop()
    assert "encode_interests" in chores
