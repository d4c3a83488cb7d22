"""Features served from records and totals that the consumer made, beside those that the log gives, on a real Valkey."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams import DAY_MS, NOW_MS, event, make_consumer, send

from tastemaker import context, telemetry
from tastemaker.cli import invoke
from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.schema import imported_folder, read_imported
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments import skew
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, append_decision
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.known_events import state_events
from tastemaker.features.known_records import KnownRecords
from tastemaker.features.rebuild import rebuild
from tastemaker.features.records import read_users
from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.features.served_features import ServedFeatures
from tastemaker.features.user_state import UserState
from tastemaker.home import Home
from tastemaker.types import Query
from tastemaker_services.stream.chores import Chores

CSV = "user_id,item_id,timestamp,kind\n" + "".join(
    f"{user},{item},{(NOW_MS - ago * DAY_MS) // 1000},{kind}\n"
    for user, item, ago, kind in [
        ("ann", "a", 3, "click"), ("ann", "b", 40, "purchase"), ("bob", "a", 1, "view"), ("bob", "c", 2, "impression"),
    ]
)  # fmt: skip
CATEGORIES = {"a": "comedy", "b": "drama", "c": "drama", "d": ""}
SLATE = ["c", "a", "b"]
Alter = Callable[[np.ndarray], None]


@pytest.fixture
def shop(state: Any, tmp_path: Path) -> Any:
    """A catalogue whose imported events are online, and whose live ones were applied and archived."""
    home, source = Home.make(tmp_path / "home"), tmp_path / "events.csv"
    source.write_text(CSV)
    save_import(home, state.keys.catalogue, import_events(source, ColumnMapping(kind="kind"), NOW_MS))
    items = imported_folder(home, state.keys.catalogue) / "items.parquet"
    table = pq.read_table(items)
    names = [CATEGORIES[item_id] for item_id in table["item_id"].to_pylist()]
    place = table.column_names.index("category")
    pq.write_table(table.set_column(place, table.field(place), pa.array(names)), items)
    with_url = state.settings.state.model_copy(update={"url": state.url})
    settings = state.settings.model_copy(update={"home": home.root, "state": with_url})
    rebuild(state.client, state.keys, home, settings.state)
    found = dataclasses.replace(state, home=home, settings=settings)
    send(
        found, event("ann", "c", "impression"), event("ann", "c", timestamp_ms=NOW_MS - 1000), event("bob", "a", "purchase"),
        event("ann", "b", "hide"), event("ann", "unknown", "like"), event("bob", "b", "click", origin="simulator"),
        event("bob", "b", "click", timestamp_ms=NOW_MS - 40 * DAY_MS),
    )  # fmt: skip
    consume(found)
    return found


def consume(shop: Any) -> None:
    worker = make_consumer(shop)
    assert worker.drain(20)
    worker.close()


def facts(shop: Any) -> ItemFacts:
    return ItemFacts.from_items(read_imported(shop.home, shop.keys.catalogue)[1])


def served(shop: Any, user: str, now_ms: int) -> np.ndarray:
    """The slate's features as a ranker gives them now."""
    store = ItemStore(facts(shop))
    store.refresh(shop.client, shop.keys)
    record = read_users(shop.client, shop.keys, [user])[user]
    rows = np.array([store.snapshot.facts.index[item_id] for item_id in SLATE], np.int32)
    return ServedFeatures(store)(Query(np.empty(0, np.int32), now_ms=now_ms, record=record), rows)


def answer(shop: Any, user: str, now_ms: int, alter: Alter = lambda value_KF: None, **fields: Any) -> None:
    """Logs an answer with its features, and has it archived."""
    value_KF = served(shop, user, now_ms)
    alter(value_KF)
    content = {
        "item_ids": SLATE,
        "feature_names": ("ease_z", *REQUEST_FEATURES),
        "features": np.column_stack([np.full(len(SLATE), 9.0), value_KF]).ravel().tolist(),
    }
    name = f"d-{user}-{now_ms}"
    decision = Decision(
        decision_id=name, request_id=name, timestamp_ms=now_ms, catalogue=shop.keys.catalogue, origin="live",
        unit=user, user_id=user, bundle="0123456789ab", **content | fields,
    )  # fmt: skip
    append_decision(shop.client, shop.keys, decision, shop.settings.state)
    consume(shop)


def measured(shop: Any) -> skew.Skew:
    return skew.measure_skew(shop.home, shop.keys.catalogue, 30, NOW_MS - DAY_MS, NOW_MS + DAY_MS)


def soon() -> int:
    return int(time.time() * 1000) + 50


def test_the_log_gives_what_the_records_and_totals_of_the_consumer_give(shop: Any) -> None:
    now_ms = soon()
    archived = read_days(shop.home / "events" / shop.keys.catalogue, EVENT_SCHEMA, "event_id")
    events = state_events(shop.home, shop.keys.catalogue, archived, shop.settings.state.late_days)
    known = KnownRecords(events, events["received_ms"].to_numpy(), facts(shop))
    rows = np.array([facts(shop).index[item_id] for item_id in SLATE], np.int32)
    for user in ("ann", "bob", "nobody"):
        found = known(Query(np.empty(0, np.int32), user_id=user, now_ms=now_ms), rows)
        expected = served(shop, user, now_ms)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=user)  # float32
    named = dict(zip(REQUEST_FEATURES, served(shop, "ann", now_ms).T.tolist(), strict=True))
    assert named["refused"] == [0, 0, 1]
    assert named["item_click_30d"][1] > 0  # only imported
    assert named["item_purchase_1d"][1] > 0  # only live


def test_what_was_served_right_does_not_differ(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "LAG_MS", 0)
    for user in ("ann", "bob", "nobody"):
        answer(shop, user, soon())
    found = measured(shop)
    assert (found.num_answers, found.rows, found.num_skipped) == (3, 9, 0)
    compared = {one.feature for one in found.features}
    assert compared == {*REQUEST_FEATURES} - {skew.AMONG_CANDIDATES}
    assert [one for one in found.features if one.differing] == []


def test_a_feature_that_is_wrong_shows_in_it_alone(shop: Any) -> None:
    wrong = REQUEST_FEATURES.index("item_click_7d")

    def alter(value_KF: np.ndarray) -> None:
        value_KF[:2, wrong] += 0.5

    answer(shop, "ann", soon(), alter)
    first, *others = measured(shop).features
    assert (first.feature, first.rows) == ("item_click_7d", 3)
    assert first.differing == pytest.approx(2 / 3)
    assert first.largest == pytest.approx(0.5, abs=0.01)  # less what ten seconds change
    assert 0 < first.mean < first.largest
    assert not any(one.differing for one in others)


def test_events_that_a_lagging_consumer_had_not_applied_are_tolerated_and_older_ones_are_not(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.client.set(shop.keys.user("ann"), UserState().encode())  # as if none of ann's had been applied
    answer(shop, "ann", soon())
    differing = {one.feature for one in measured(shop).features if one.differing}
    assert not differing & {"session_length", "times_shown", "in_session"}  # of the last second
    assert "user_weight_30d" in differing  # of the imported ones, which are days old
    monkeypatch.setattr(skew, "LAG_MS", 10 * 365 * DAY_MS)
    assert not any(one.differing for one in measured(shop).features)


def test_what_held_between_two_events_of_the_lag_is_right_too(shop: Any) -> None:
    first = soon()
    item = SLATE.index("c")
    send(shop, event("eve", "c", timestamp_ms=first))  # of drama alone
    consume(shop)
    value_KF = served(shop, "eve", first + 100)
    share = REQUEST_FEATURES.index("taste_share")
    assert value_KF[item, share] == 1.0  # 0 before, and a third after all of them
    for _ in range(2):
        send(shop, event("eve", "a", timestamp_ms=first))  # of comedy
    consume(shop)

    def as_before(later_KF: np.ndarray) -> None:
        later_KF[:] = value_KF

    answer(shop, "eve", first + 200, as_before)
    assert not any(one.differing for one in measured(shop).features)


def test_answers_without_the_record_and_items_of_no_import_are_passed_over(shop: Any) -> None:
    answer(shop, "ann", soon(), rungs=("no-record",))
    assert measured(shop) == skew.Skew(0, 0, 0, [])
    answer(shop, "bob", soon(), item_ids=["c", "new", "b"])
    found = measured(shop)
    assert (found.num_answers, found.rows, found.num_skipped) == (1, 2, 1)


def test_days_of_an_older_release_have_no_features(shop: Any) -> None:
    answer(shop, "ann", soon(), feature_names=(), features=())
    for part in (shop.home / "decisions" / shop.keys.catalogue).glob("day=*/part-*.parquet"):
        pq.write_table(pq.ParquetFile(part).read().select(DECISION_SCHEMA.names[:-2]), part)
    assert measured(shop).num_answers == 0


def test_the_command_and_the_metric_tell_it(
    shop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "_settings", shop.settings)
    invoke(["features", "skew"])
    assert "0 answers, 0 items compared" in capsys.readouterr().out

    def alter(value_KF: np.ndarray) -> None:
        value_KF[:, REQUEST_FEATURES.index("taste_share")] = 7.0

    answer(shop, "ann", soon() - skew.LAG_MS - 60_000, alter)
    invoke(["features", "skew", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["num_answers"], found["features"][0]["feature"]) == (1, "taste_share")
    assert found["features"][0]["differing"] == 1.0
    chores = Chores(shop.settings, shop.home)
    monkeypatch.setattr(chores, "_skew_at", 0.0)
    chores.skew()
    catalogue = shop.keys.catalogue
    assert telemetry.SKEW.labels(catalogue, "taste_share")._value.get() == 1.0
    assert telemetry.SKEW.labels(catalogue, "item_age_days")._value.get() == 0.0
    assert telemetry.SKEW_ROWS.labels(catalogue)._value.get() == 3
