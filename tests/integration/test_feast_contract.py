"""Feast itself against our rows: bytes, values, files and its command line, on a real Valkey."""

import stat
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from records import NOW_MS, counters_of, event, state_of, write_items, write_users

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import DataError
from tastemaker.features import feast_format, feast_offline
from tastemaker.features.feast_repo import apply_repo, open_store, repo_folder, write_repo
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.projection import project_items, project_users
from tastemaker.features.ranker_services import RankerService
from tastemaker.features.records import read_user
from tastemaker.features.view_rows import attribute_rows, user_rows
from tastemaker.features.views import SERVICE, VIEW, VIEWS, Entity, ViewRows, join_key, views_of
from tastemaker.state.server import EmbeddedValkey
from tastemaker.users.profiles import restore_profiles

DAY_MS = 86_400_000
ITEM_IDS = ["a", "b", "ü, ünicode"]
USERS = {
    "u": state_of(
        event("u", "a", "click", NOW_MS - DAY_MS), event("u", "b", "impression", NOW_MS),
        event("u", "b", "rating", NOW_MS + 7, 3.5),
    ),
    "user:ü": state_of(event("user:ü", "c", "hide", NOW_MS + 1)),
    "one tm_shop": state_of(event("one", "c", "impression", NOW_MS + 2)),
}  # fmt: skip
ITEM_EVENTS = [
    event("u", "a", "click", NOW_MS), event("v", "a", "purchase", NOW_MS - 3 * DAY_MS), event("u", "b", "skip", NOW_MS + 5),
]  # fmt: skip


def items_table() -> pa.Table:
    columns = {
        "item_id": ITEM_IDS,
        "title": ITEM_IDS,
        "category": ["comedy", "drama", ""],
        "tags": [[], [], []],
    }
    table = pa.table(columns | {"created_at_ms": [NOW_MS - DAY_MS, None, 0]}, schema=ITEMS_SCHEMA)
    return table.append_column("price", pa.array([1.25, None, 0.0]))


@pytest.fixture(scope="module")
def repo(valkey_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied repo of a catalogue of this module's own, whose name is the end of another's."""
    url = EmbeddedValkey(valkey_home).running_url()
    assert url is not None
    folder = repo_folder(valkey_home, "feast-contract")
    write_repo(folder, "feast-contract", url)
    assert apply_repo(folder) == [view.name for view in VIEWS]
    return folder


@pytest.fixture
def shop(state: Any) -> Any:
    """Keys, rows and client of the repo's catalogue, without rows and marks."""
    from tastemaker.config import Settings
    from tastemaker.state.connection import open_keys

    settings = Settings(catalogue="feast-contract", home=state.home.root, state=state.settings.state)
    keys = open_keys(state.client, settings)
    rows = FeastRows(state.client, "feast-contract")
    for entity in ("user", "item"):
        for ids in rows.ids(entity):
            rows.delete(ids, views_of(entity))
    return type("Shop", (), {"client": state.client, "keys": keys, "rows": rows})


def online(folder: Path, entity: Entity, ids: list[str]) -> dict[str, list[Any]]:
    names = [f"{view.name}:{feature.name}" for view in views_of(entity) for feature in view.features]
    rows = [{join_key(entity): entity_id} for entity_id in ids]
    found: dict[str, list[Any]] = open_store(folder).get_online_features(names, rows).to_dict()
    return found


def assert_equal(found: dict[str, list[Any]], rows: ViewRows) -> None:
    """Exactly, to the last bit."""
    for n in range(len(rows)):
        assert {name: found[name][n] for name in rows.row(n)} == rows.row(n)


def test_keys_fields_values_and_times_are_feasts_byte_for_byte():
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

    for entity in ("user", "item"):
        for entity_id in ("u", "", "ü" * 200, "a:b tm_shop"):
            key = EntityKey(join_keys=[join_key(entity)], entity_values=[Value(string_val=entity_id)])
            assert feast_format.row_key(entity, entity_id, "tm_x") == _redis_key("tm_x", key)
    for view in VIEWS:
        names = [f"{view.name}:{feature.name}" for feature in view.features]
        assert list(feast_format.fields(view)) == [_mmh3(name) for name in names]
    rows = ViewRows(
        VIEW["user_session"], np.array([[-5.0, 2.0**53, np.nan]]), {"session_last_item": ["ü" * 100]}
    )
    values = [Value(int64_val=-5), Value(int64_val=2**53), Value(), Value(string_val="ü" * 100)]
    assert feast_format.cells(rows)[0] == [value.SerializeToString() for value in values]
    numbers = [0.0, -0.0, 1 / 3, 1e-300]
    rows = ViewRows(VIEW["item_popularity"], np.array([[0.0, *numbers]]), {})
    doubles = [Value(double_val=number).SerializeToString() for number in numbers]
    assert feast_format.cells(rows)[0] == [Value(int64_val=0).SerializeToString(), *doubles]
    for time_ns in (0, 1_000, 1_750_000_000_123_456_789, 1_750_000_000_000_000_000):
        time = Timestamp()
        time.FromNanoseconds(time_ns)
        assert feast_format.encode_time(time_ns) == time.SerializeToString()


def test_what_serving_reads_is_what_feast_reads(shop: Any, repo: Path):
    write_users(shop.client, shop.keys, USERS)
    totals = counters_of(ITEM_EVENTS, ITEM_IDS)
    write_items(shop.client, shop.keys, dict(zip(ITEM_IDS, totals.encode(), strict=True)))
    project_users(shop.client, shop.keys, shop.rows)
    project_items(shop.client, shop.keys, shop.rows)
    attributes = attribute_rows(items_table(), NOW_MS)
    shop.rows.write(ITEM_IDS, [attributes])

    found = online(repo, "user", list(USERS))
    for n, user_id in enumerate(USERS):
        for rows in user_rows([read_user(shop.client, shop.keys, user_id)]):
            assert {name: found[name][n] for name in rows.row(0)} == rows.row(0)
    assert found["user_rating_1h"][0] == 1.0
    assert 0 < found["user_click_1d"][0] < 1

    store = ItemStore(ItemFacts.of(ITEM_IDS, attributes))
    assert store.refresh(shop.client, shop.keys) == 3
    found = online(repo, "item", ITEM_IDS)
    for rows in (store.snapshot.counters, store.snapshot.popularity, store.snapshot.facts.attributes):
        assert_equal(found, rows)
        for f, feature in enumerate(rows.view.numbers):  # and so as numpy has them
            np.testing.assert_array_equal(np.array(found[feature.name], np.float64), rows.value_NF[:, f])


def test_our_reader_reads_what_feast_wrote(shop: Any, repo: Path):
    table = pd.DataFrame(
        {
            "user_id": ["u", "v"], "event_timestamp": [datetime(2026, 1, 2, tzinfo=UTC)] * 2,
            "created": [datetime(2026, 1, 3, tzinfo=UTC)] * 2, "session_last_ms": [NOW_MS, 7],
            "session_length": [3, 0], "session_started_ms": pd.array([NOW_MS - 9, None], "Int64"),
            "session_last_item": ["ä", ""],
        }
    )  # fmt: skip
    open_store(repo).push("user_session_push", table)
    found = shop.rows.read(VIEW["user_session"], ["u", "nobody"])
    assert found == [
        {
            "session_last_ms": NOW_MS, "session_length": 3, "session_started_ms": NOW_MS - 9, "session_last_item": "ä",
        },
        None,
    ]  # fmt: skip
    assert shop.rows.times_ns("user", [VIEW["user_session"]], ["v", "nobody"]) == [
        [int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) * 10**9], [None],
    ]  # fmt: skip


def test_the_service_gives_all_features_of_a_user_and_an_item(shop: Any, repo: Path):
    shop.rows.write(["u"], user_rows([USERS["u"]]))
    shop.rows.write(["a"], [attribute_rows(items_table().slice(0, 1), NOW_MS)])
    store = open_store(repo)
    rows = [{"user_id": "u", "item_id": "a"}, {"user_id": "nobody", "item_id": "nothing"}]
    found = store.get_online_features(store.get_feature_service(SERVICE), rows).to_dict()
    assert found.keys() - {"user_id", "item_id"} == {f.name for view in VIEWS for f in view.features}
    assert (found["item_price"], found["taste_1"]) == ([1.25, None], ["drama", None])


def test_each_released_ranker_has_a_service_of_the_views_that_its_features_need(
    valkey_home: Any, tmp_path: Path
):
    url = EmbeddedValkey(valkey_home).running_url()
    assert url is not None
    rankers = {
        "0123456789ab": RankerService(recipe="crosses", features=("taste_share", "session_length")),
        "ba9876543210": RankerService(recipe="all", features=("all",)),
        "000000000000": RankerService(recipe="shown", features=("times_shown",)),
    }

    def services() -> dict[str, list[str]]:
        found = open_store(tmp_path).list_feature_services()
        return {one.name: [view.name for view in one.feature_view_projections] for one in found}

    write_repo(tmp_path, "rankers", url, rankers)
    apply_repo(tmp_path)
    assert services() == {
        SERVICE: [view.name for view in VIEWS],
        "ranker_0123456789ab": ["user_taste", "user_session", "item_attributes"],
        "ranker_ba9876543210": list(rankers["ba9876543210"].views),
    }
    write_repo(tmp_path, "rankers", url, {"ba9876543210": rankers["ba9876543210"]})
    apply_repo(tmp_path)
    assert sorted(services()) == [SERVICE, "ranker_ba9876543210"]


def test_each_row_is_of_a_later_time_than_the_one_before(shop: Any, repo: Path):
    view = VIEW["user_session"]

    def time_ns() -> int:
        ((found,),) = shop.rows.times_ns("user", [view], ["u"])
        return int(found)

    state = state_of(event("u", "a", "click"))
    shop.rows.write(["u"], user_rows([state]))
    assert time_ns() == NOW_MS * 1_000_000
    shop.rows.write(["u"], user_rows([state]))
    shop.rows.write(["u"], user_rows([state]))
    assert time_ns() == NOW_MS * 1_000_000 + 2_000
    shop.rows.write(["u"], user_rows([state_of(event("u", "a", "click", NOW_MS + 1))]))
    assert time_ns() == (NOW_MS + 1) * 1_000_000
    row = {"user_id": ["u"], "session_last_ms": [1], "session_length": [9], "session_started_ms": [1]}
    for millis, length in ((0, 1), (2, 9)):  # Feast drops what is not later, and so takes what is
        at = datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(milliseconds=millis)
        table = pd.DataFrame(row | {"session_last_item": ["x"], "event_timestamp": [at], "created": [at]})
        open_store(repo).push("user_session_push", table)
        assert shop.rows.read(view, ["u"])[0]["session_length"] == length


def test_rows_of_a_catalogue_whose_name_ends_alike_are_left_alone(shop: Any, state: Any, repo: Path):
    other = FeastRows(state.client, "my-tm-feast-contract")
    for rows in (shop.rows, other):
        rows.write(["u"], user_rows([USERS["u"]]))
    assert [entity_id for ids in shop.rows.ids("user") for entity_id in ids] == ["u"]
    shop.rows.delete(["u", "nobody"], views_of("user"))
    assert shop.rows.read(VIEW["user_taste"], ["u"]) == [None]
    assert [entity_id for ids in shop.rows.ids("user") for entity_id in ids] == []
    assert other.read(VIEW["user_taste"], ["u"]) != [None]
    assert (
        yaml.safe_load((repo / "feature_store.yaml").read_text())["online_store"]["full_scan_for_deletion"]
        is False
    )


def test_offline_files_are_what_feast_reads_back(shop: Any, repo: Path):
    for user_id in USERS:
        shop.client.delete(shop.keys.user(user_id))
    write_users(shop.client, shop.keys, USERS)
    told = {
        "demographics": '{"age":30,"gender":"f"}',
        "location": '{"lat":52.5,"lon":13.4}',
        "updated_ms": f"{NOW_MS}",
    }
    restore_profiles(shop.client, shop.keys, dict.fromkeys(USERS, told))
    totals = counters_of(ITEM_EVENTS, ITEM_IDS)
    shop.client.delete(shop.keys.item_totals)
    write_items(shop.client, shop.keys, dict(zip(ITEM_IDS, totals.encode(), strict=True)))
    batches = [
        *feast_offline.user_batches(shop.client, shop.keys), *feast_offline.item_batches(shop.client, shop.keys),
        *feast_offline.profile_batches(shop.client, shop.keys),
        *feast_offline.catalogue_batches(items_table(), NOW_MS, "f00d"),
    ]  # fmt: skip
    counts = feast_offline.materialize(batches, shop.rows, repo, NOW_MS + DAY_MS)
    assert set(counts.values()) == {3}
    asked = pd.DataFrame(
        {"user_id": list(USERS), "event_timestamp": [datetime.fromtimestamp(NOW_MS / 1000 + 60, UTC)] * 3}
    )
    names = [f"{view.name}:{feature.name}" for view in views_of("user") for feature in view.features]
    past = open_store(repo).get_historical_features(asked, names).to_df().set_index("user_id")
    now = online(repo, "user", list(USERS))
    for n, user_id in enumerate(USERS):
        for name in ("user_click_1d", "user_last_ms", "taste_1", "taste_1_weight", "session_length"):
            assert past.loc[user_id, name] == now[name][n]
        for name, value in {"user_age": 30, "user_gender": "f", "user_lat": 52.5, "user_lon": 13.4}.items():
            assert past.loc[user_id, name] == now[name][n] == value
    assert online(repo, "item", ITEM_IDS)["content_space"] == ["f00d"] * 3
    earlier = asked.assign(event_timestamp=datetime.fromtimestamp(NOW_MS / 1000 - 60, UTC))
    assert open_store(repo).get_historical_features(earlier, names).to_df()["user_last_ms"].isna().all()


def test_a_failed_materialize_leaves_the_files_as_they_were(shop: Any, repo: Path):
    def broken():
        yield ["u"], user_rows([USERS["u"]])
        raise DataError("no more")

    feast_offline.materialize([(["u"], user_rows([USERS["u"]]))], shop.rows, repo, NOW_MS)
    before = {path.name: path.read_bytes() for path in (repo / "offline").iterdir()}
    with pytest.raises(DataError, match="no more"):
        feast_offline.materialize(broken(), shop.rows, repo, NOW_MS)
    assert {path.name: path.read_bytes() for path in (repo / "offline").iterdir()} == before


def test_feasts_own_command_line_works_on_the_repo(repo: Path):
    from click.testing import CliRunner
    from feast.cli.cli import cli

    def said(*words: str) -> str:
        with warnings.catch_warnings(action="ignore"):  # Feast's own
            done = CliRunner().invoke(cli, ["-c", str(repo), *words])
        assert done.exit_code == 0, done.output
        return str(done.output)

    listed = said("feature-views", "list")
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [view.name for view in VIEWS]
    # it reads definitions.py, and finds nothing that was not applied
    assert "No changes to registry" in said("plan")


def test_the_password_is_in_a_file_that_only_its_owner_reads(repo: Path, tmp_path: Path):
    file = repo / "feature_store.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "password" in file.read_text()
    write_repo(tmp_path / "open", "shop", "redis://host")
    assert "password" not in (tmp_path / "open" / "feature_store.yaml").read_text()


@pytest.mark.parametrize("password", ["a,b=c", "p$HOME%", "0123", "true", "ü'\"\\"])
def test_any_password_reaches_feast_whole(password: str, tmp_path: Path):
    from urllib.parse import quote

    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.repo_config import load_repo_config

    write_repo(tmp_path, "shop", f"redis://:{quote(password, safe='')}@host:1/2")
    config = load_repo_config(tmp_path, tmp_path / "feature_store.yaml")
    nodes, options = RedisOnlineStore._parse_connection_string(config.online_store.connection_string)
    assert nodes == [{"host": "host", "port": "1"}]
    assert options == {"db": 2, "password": password}


def test_without_a_repo_the_error_says_what_makes_one(tmp_path: Path):
    with pytest.raises(DataError, match=r"no Feast repo at .*features apply"):
        open_store(tmp_path)
