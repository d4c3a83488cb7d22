"""Items put and deleted through state: processes agree on rows, the archive survives the server, trainings see them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.item_archive import ItemArchive, ItemArchiver, current_items
from tastemaker.data.item_rows import Item
from tastemaker.data.log import freeze_log, read_frozen, read_log
from tastemaker.features.categories import Categories
from tastemaker.features.counters import Counters, row_of
from tastemaker.features.well_known import MOST_IMPRESSIONS, Tried, WellKnown
from tastemaker.home import Home
from tastemaker.state import items as state_items
from tastemaker.state.items import ItemChanges, PutItems, write_items


def row(item_id: str, **fields: object) -> str:
    return Item(item_id=item_id, **fields).encode()  # type: ignore[arg-type]


def put(state: Any, *item_ids: str, **fields: object) -> list[bool | None]:
    return write_items(state.client, state.keys, {i: row(i, **fields) for i in item_ids}).changed


def delete(state: Any, *item_ids: str) -> list[bool | None]:
    return write_items(state.client, state.keys, dict.fromkeys(item_ids)).changed


def lose(state: Any) -> None:
    state.client.delete(
        state.keys.put_items, state.keys.put_order, state.keys.put_changes, state.keys.put_head
    )


def test_deleting_tells_what_was_never_put(state: Any) -> None:
    put(state, "a")
    written = write_items(state.client, state.keys, {"a": None, "imported": None, "b": row("b")})
    assert (written.changed, written.num_never_put) == ([True, True, True], 1)
    again = write_items(state.client, state.keys, {"a": None, "imported": None})
    assert (again.changed, again.num_never_put) == ([False, False], 0)


def test_a_reader_gets_what_is_new_alone(state: Any) -> None:
    reader = PutItems(state.client, state.keys)
    assert not reader.poll()
    assert put(state, "a", "b") == [True, True]
    first = reader.poll()
    assert (first.order, set(first.rows)) == (["a", "b"], {"a", "b"})
    assert not reader.poll()
    assert put(state, "b", "c", title="new") == [True, True]
    assert delete(state, "a", "unknown") == [True, True]
    second = reader.poll()
    assert second.order == ["c"]
    assert second.rows == {
        "b": row("b", title="new"), "c": row("c", title="new"), "a": None, "unknown": None
    }  # fmt: skip
    assert not second.restarted
    everything = PutItems(state.client, state.keys).poll()
    assert (everything.order, everything.rows) == (["a", "b", "c"], reader.rows)


def test_writing_the_same_again_changes_nothing(state: Any) -> None:
    assert put(state, "a") == [True]
    reader = PutItems(state.client, state.keys)
    reader.poll()
    assert put(state, "a") == [False]
    assert not reader.poll()
    assert delete(state, "a") == [True]
    assert delete(state, "a") == [False]


def test_many_are_read_page_by_page(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_items, "_PAGE", 7)
    ids = [f"i{n}" for n in range(30)]
    put(state, *ids)
    put(state, *ids[:10], title="again")
    found = PutItems(state.client, state.keys).poll()
    assert found.order == ids
    assert found.rows == {i: row(i, title="again") if n < 10 else row(i) for n, i in enumerate(ids)}


def test_a_full_catalogue_takes_changes_and_no_new_items(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_items, "MOST_ITEMS", 2)
    assert put(state, "a", "b", "c") == [True, True, None]
    assert put(state, "a", "c", title="new") == [True, None]
    assert PutItems(state.client, state.keys).poll().order == ["a", "b"]


writes = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["x", "y", None])), max_size=12)


@given(st.lists(writes, max_size=4))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stepwise_and_at_once_read_the_same(state: Any, steps: list[list[tuple[str, str | None]]]) -> None:
    lose(state)
    stepwise = PutItems(state.client, state.keys)
    order: list[str] = []
    rows: dict[str, str | None] = {}
    for step in steps:
        for item_id, title in step:
            text = None if title is None else row(item_id, title=title)
            write_items(state.client, state.keys, {item_id: text}, durable=False)
            rows[item_id] = text
            if text is not None and item_id not in order:
                order.append(item_id)
        stepwise.poll()
    at_once = PutItems(state.client, state.keys)
    at_once.poll()
    for reader in (stepwise, at_once):
        assert (reader.order, reader.rows) == (order, rows)


def test_a_lost_server_is_refilled_from_the_archive(state: Any) -> None:
    archiver = ItemArchiver(state.client, state.keys, state.home)
    reader = PutItems(state.client, state.keys)
    put(state, "a", "b", "c", title="old")
    assert archiver.archive() == 3
    put(state, "b", title="new")
    delete(state, "a")
    archiver.archive()
    lineage = reader.poll().lineage
    lose(state)
    assert not reader.poll()  # what is known stays until it is there again
    put(state, "b", title="newest")  # somebody was faster than the refilling
    assert ItemArchiver(state.client, state.keys, state.home).archive() == 3
    changes = reader.poll()
    assert changes.restarted
    assert changes.lineage != lineage
    assert reader.rows == {"a": None, "b": row("b", title="newest"), "c": row("c", title="old")}
    archived = ItemArchive(state.home, state.keys.catalogue).read()
    assert (archived.lineage, archived.rows) == (changes.lineage, reader.rows)
    assert archived.order == reader.order == ["b", "c"]


def test_two_archivers_take_turns(state: Any) -> None:
    one, other = (ItemArchiver(state.client, state.keys, state.home) for _ in range(2))
    put(state, "a")
    assert (one.archive(), other.archive()) == (1, 0)
    put(state, "b")
    assert (other.archive(), one.archive()) == (1, 0)
    assert ItemArchive(state.home, state.keys.catalogue).read().order == ["a", "b"]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path, cut: int) -> None:
    archive = ItemArchive(Home.make(tmp_path / "home"), "shop")
    first = ItemChanges("L", 1, True, ["a"], {"a": row("a")})
    second = ItemChanges("L", 2, False, ["b"], {"b": row("b", title="é" * 50)})
    archive.append(first)
    size = archive.size
    archive.append(second)
    with archive.path.open("ab") as file:
        file.truncate(archive.size - cut)
    assert archive.read().order == ["a"]
    archive.append(second)
    assert archive.read() == ItemChanges("L", 2, True, ["a", "b"], first.rows | second.rows)
    assert archive.path.read_bytes()[size:].count(b"\n") == 1


@pytest.fixture
def shop(state: Any, tmp_path: Path) -> Any:
    (tmp_path / "items.csv").write_text("item_id,title,category\na,A,old\nb,B,old\nunused,U,old\n")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nann,a,5\nann,b,6\nbob,b,7\n")
    mapping = ColumnMapping(items=tmp_path / "items.csv")
    save_import(state.home, state.keys.catalogue, import_events(tmp_path / "events.csv", mapping, 10**13))
    return state


def items_of(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["item_id"].to_pylist(), table["category"].to_pylist(), strict=True))


def test_trainings_see_what_was_put_as_of_their_freeze(shop: Any) -> None:
    home, catalogue = shop.home, shop.keys.catalogue
    before = freeze_log(home, catalogue)
    put(shop, "new", "b", category="put", price=3.5)
    delete(shop, "unused", "a")
    ItemArchiver(shop.client, shop.keys, home).archive()
    frozen = freeze_log(home, catalogue)
    # a was deleted but is in somebody's history: what was learned from it is still true.
    assert items_of(frozen.items) == {"a": "old", "b": "put", "new": "put"}
    assert frozen.items["price"].to_pylist() == [None, 3.5, 3.5]
    put(shop, "later")
    ItemArchiver(shop.client, shop.keys, home).archive()
    assert items_of(read_log(home, catalogue).items).keys() == {"a", "b", "new", "later"}
    for dataset in (before, frozen):
        again = read_frozen(home, catalogue, dataset.fingerprint)
        assert again.fingerprint == dataset.fingerprint
        assert again.items.equals(dataset.items)


def test_events_of_a_put_item_count_for_its_category(shop: Any) -> None:
    category = Categories(shop.home, shop.client, shop.keys)
    category.refresh()
    assert (category("a"), category("new")) == ("old", "")
    put(shop, "new", "a", category="put")
    category.refresh()
    assert (category("a"), category("new"), category("b")) == ("put", "put", "old")


def test_items_that_were_shown_often_are_well_known(state: Any) -> None:
    shown = {"often": MOST_IMPRESSIONS, "seldom": MOST_IMPRESSIONS - 1}
    counters = Counters.zeros(2).plus(
        np.arange(2), np.full(2, row_of("impression")), np.array(list(shown.values())), np.full(2, 10**12)
    )
    totals = dict(zip(shown, counters.encode(), strict=True))
    state.client.hset(state.keys.item_totals, mapping=totals)
    clicks = Counters.zeros(1).plus(
        np.zeros(1, int), np.array([row_of("click")]), np.array([3.0]), np.array([10**12])
    )
    state.client.hset(state.keys.item_totals, mapping={"clicked": clicks.encode()[0]})
    known = WellKnown(state.client, state.keys)
    known.refresh([])
    assert known.current() == {}
    known.refresh(["never", "seldom", "often", "clicked"])
    assert known.current() == {
        "never": Tried(0, 0), "seldom": Tried(MOST_IMPRESSIONS - 1, 0), "often": Tried(MOST_IMPRESSIONS, 0),
        "clicked": Tried(0, 3),
    }  # fmt: skip
    assert [name for name, one in known.current().items() if one.is_well_known] == ["often"]


def test_items_as_of_now_are_imported_and_put_ones(shop: Any) -> None:
    put(shop, "new", category="put")
    delete(shop, "a")
    ItemArchiver(shop.client, shop.keys, shop.home).archive()
    assert items_of(current_items(shop.home, shop.keys.catalogue)) == {
        "b": "old",
        "unused": "old",
        "new": "put",
    }
