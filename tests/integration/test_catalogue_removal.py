"""Two catalogues on one server and in one home: one is torn down, and every row of the other is as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from streams import NOW_MS, event, make_consumer

from tastemaker import context
from tastemaker.bundle.store import BundleStore
from tastemaker.cli import invoke
from tastemaker.config import Settings, StateSettings
from tastemaker.errors import UsageError
from tastemaker.events.log import append
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.projection import project_items, project_users
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.state.connection import open_keys
from tastemaker.state.keys import Keys
from tastemaker.state.lists import StoredList, write_lists

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
USERS = [f"u{n}" for n in range(20)]


class Shop:
    """A catalogue in a home and on a server that others use too."""

    def __init__(self, client: redis.Redis, home: Home, url: str, catalogue: str) -> None:
        self.client, self.home, self.url = client, home, url
        self.settings = Settings(
            catalogue=catalogue, home=home.root, state=StateSettings(partitions=4, url=url)
        )
        self.keys = open_keys(client, self.settings)

    def fill(self) -> None:
        """Events, records, lists, Feast's rows, a spool, a bundle with its version."""
        events = [event(user, f"i{n % 5}", event_id=f"{user}-{n}") for n, user in enumerate(USERS)]
        append(self.client, self.keys, events, self.settings.state, NOW_MS)
        worker = make_consumer(self)
        assert worker.drain()
        worker.close()
        append(self.client, self.keys, [event("late", "i1")], self.settings.state, NOW_MS)
        write_lists(self.client, self.keys, [(user, StoredList("b", NOW_MS, ["i"])) for user in USERS], 3600)
        rows = FeastRows(self.client, self.keys.catalogue)
        while project_users(self.client, self.keys, rows) or project_items(self.client, self.keys, rows):
            pass
        for folder in ("spool", "decisions", "erasures"):
            (self.home / folder / self.keys.catalogue).mkdir(parents=True)
            (self.home / folder / self.keys.catalogue / "one").write_text("x")
        ref = BundleStore.of(self.settings, self.home).put_manifest(
            self.keys.catalogue, self.keys.catalogue.encode()
        )
        Registry(self.settings, self.home).publish(self.keys.catalogue, ref, {})

    def contents(self) -> dict[str, Any]:
        """All that it has, by raw keys, files and versions."""
        rows = FeastRows(self.client, self.keys.catalogue)
        found: dict[str, Any] = {
            entity: sorted(id_ for page in rows.ids(entity) for id_ in page) for entity in ("user", "item")
        }
        for entity, ids in list(found.items()):
            found |= {f"row {key!r}": raw(self.client, key) for key in rows._keys(entity, ids)}
        tags = (f"tm:{{{self.keys.catalogue}}}", f"tm:{{{self.keys.catalogue}:")
        own = [key for key in self.client.scan_iter() if key.startswith(tags)]
        found |= {key: raw(self.client, key) for key in own}
        for file in sorted(self.home.root.rglob("*")):
            if self.keys.catalogue in file.parts and file.is_file():
                found[str(file)] = file.read_bytes()
        found["versions"] = Registry(self.settings, self.home).versions(self.keys.catalogue)
        return found


def raw(client: redis.Redis, key: Any) -> Any:
    return client.execute_command("DUMP", key, NEVER_DECODE=True)


@pytest.fixture
def shops(
    state: Any, tmp_path: Path, request: pytest.FixtureRequest, make_home: Callable[[Path], Home]
) -> dict[str, Shop]:
    home = make_home(tmp_path / "home")
    found = {name: Shop(state.client, home, state.url, name) for name in request.param}
    for shop in found.values():
        shop.fill()
    yield found
    for shop in found.values():
        for key in state.client.scan_iter(match=f"*{shop.keys.catalogue}*"):
            state.client.delete(key)


@pytest.mark.parametrize(
    "shops",
    # of Feast's projects one is the end of another, of names one the beginning
    [["shop", "workshop", "x-tm-shop"], ["a", "a-b", "b-a"], ["tm-shop", "shop"]],
    indirect=True,
)  # fmt: skip
def test_one_goes_and_the_others_rows_are_untouched(
    shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (name, gone), *others = shops.items()
    monkeypatch.setattr(context, "_settings", gone.settings)
    before = {other: shop.contents() for other, shop in others}
    assert all(len(found) > 100 and found["user"] and found["versions"] for found in before.values())
    with pytest.raises(UsageError, match=rf"all that catalogue {name} has .* say so with --yes"):
        invoke(["catalogue", "remove", name])
    full = gone.contents()
    assert full["user"] == sorted(USERS)
    invoke(["catalogue", "remove", name, "--yes", "--bundles", "--json"])
    removed = json.loads(capsys.readouterr().out)
    assert removed["feature rows"] == len(full["user"]) + len(full["item"])
    assert removed["state keys"] > 4 * len(USERS)
    assert (removed["versions"], removed["manifests"]) == (1, 1)
    left = gone.contents()
    receipt = str(gone.home / "erasures" / name / "one")
    assert left == {"user": [], "item": [], "versions": [], receipt: b"x"}
    assert {other: shop.contents() for other, shop in others} == before
    invoke(["catalogue", "remove", name, "--yes", "--json"])
    assert json.loads(capsys.readouterr().out) == {}


@pytest.mark.parametrize("shops", [["shop"]], indirect=True)
def test_one_that_is_served_is_not_touched(shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    shop = shops["shop"]
    monkeypatch.setattr(context, "_settings", shop.settings)
    worker = make_consumer(shop)
    worker.step()
    before = shop.contents()
    with pytest.raises(UsageError, match="partitions that a stream consumer reads, is 4, must be 0: stop it"):
        invoke(["catalogue", "remove", "shop", "--yes"])
    after = shop.contents()
    assert set(after) >= set(before) - {Keys("shop", 4).partition_lease(p) for p in range(4)}
    assert after["user"] == before["user"]
    worker.close()
    invoke(["catalogue", "remove", "shop", "--yes"])
    assert shop.contents()["versions"] != []  # bundles stay unless asked for


def test_a_name_that_is_none_is_refused(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_settings", state.settings)
    with pytest.raises(UsageError, match="catalogue"):
        invoke(["catalogue", "remove", "sh*p", "--yes"])
