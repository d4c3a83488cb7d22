"""A logged list of two variants' picks is drawn again from both variants' own lists: on a real Valkey, consumer and archive."""

from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from replayed_world import ReplayedWorld, consume, described
from streams import NOW_MS, event, send
from tagged import items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.schema import imported_folder
from tastemaker.errors import BundleError, DataError
from tastemaker.events.archive import read_days
from tastemaker.experiments.allocation import Interleaving
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import assign_interleaved
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker_services.commands import _print_replay

READ = ("item_click_7d", "times_shown")


def bundle_of(state: Any, share: float) -> Bundle:
    store = BundleStore.of(state.settings, state.home)
    ref = write_bundle(
        store,
        hydration={"request_features": READ},
        exploration={"share": share, "max_interactions": 20},
    )
    _, manifest = store.get_manifest(ref.uri)
    return Bundle.open(store, store.put_manifest(state.keys.catalogue, manifest))


def duel(*variants: Variant) -> Assigned:
    one = Experiment(name="duel", hypothesis="h", salt="s", variants=variants, allocation=Interleaving())
    return Assigned((assign_interleaved(one, "ann"),))


TWO_BUNDLES = duel(Variant(name="now", alias="champion"), Variant(name="then", alias="challenger"))
TWO_POLICIES = duel(
    Variant(name="plain", alias="champion", policy={"until": "retrieve"}),
    Variant(name="ranked", alias="champion", policy={"source_weights": {"popular": 3.0}}),
)


@pytest.fixture
def world(state: Any) -> ReplayedWorld:
    folder = imported_folder(state.home, state.keys.catalogue)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(items_table(), folder / "items.parquet")
    kinds = {"i1": "click", "i5": "like", "i9": "purchase", "i2": "hide"}
    send(
        state,
        *(
            event("ann", item, kind, timestamp_ms=NOW_MS - 1000 * n)
            for n, (item, kind) in enumerate(kinds.items())
        ),
    )
    consume(state)
    made = ReplayedWorld(state, bundle_of(state, 0.5))
    made.beside("challenger", bundle_of(state, 0.0))
    return made


@pytest.mark.parametrize("assigned", [TWO_BUNDLES, TWO_POLICIES])
def test_both_lists_are_made_again_and_drawn_as_then(world: ReplayedWorld, assigned: Assigned) -> None:
    world.assigned = assigned
    for asked in ({}, {"session": ["i3"]}, {"exclude": ["i0"]}):
        answer = world.answer(explain=True, **asked)
        assert answer["variant"] == "interleaved"
        found = world.replay(answer["request_id"])
        assert [slot.replayed for slot in found.slots] == [item["item_id"] for item in answer["items"]]
        assert [slot.replayed_team for slot in found.slots] == [item["team"] for item in answer["items"]]
        assert (described(found), found.notes) == ([], [])
        for item in answer["items"]:
            ranks = {one.variant: one.rank_of(item["item_id"]) for one in found.lists}
            assert {name: rank for name, rank in ranks.items() if rank} == item["team_ranks"]


def test_a_page_of_a_drawn_list_is_replayed_with_it(world: ReplayedWorld) -> None:
    world.assigned = TWO_BUNDLES
    first = world.answer(k=4, paged=True)
    second = world.answer(k=4, cursor=first["next_cursor"])
    for answer in (first, second):
        found = world.replay(answer["request_id"])
        assert described(found) == []
        assert {slot.logged_team for slot in found.slots} <= {"now", "then", None}
        assert len(found.lists) == 2


def test_what_happens_later_does_not_count_and_a_lost_event_shows(world: ReplayedWorld) -> None:
    world.assigned = TWO_BUNDLES
    answer = world.answer()
    send(world.state, *(event("ann", f"i{n}", "purchase") for n in (0, 3, 7, 11)))
    consume(world.state)
    assert described(world.replay(answer["request_id"])) == []
    folder = world.state.home / "events" / world.state.keys.catalogue
    for part in folder.glob("day=*/part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.filter(pc.invert(pc.equal(table["item_id"], "i9"))), part)
    found = world.replay(answer["request_id"])
    assert found.differing
    assert len([note for note in found.notes if "not exactly the one that was read" in note]) == 1


def test_the_command_shows_teams_and_both_ranks(
    world: ReplayedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.assigned = TWO_BUNDLES
    found = world.replay(world.answer()["request_id"])
    _print_replay(found)
    shown = capsys.readouterr().out
    assert "rank by now" in shown
    assert "rank by then" in shown
    assert "no difference" in shown


def test_a_bundle_of_either_side_that_is_gone_is_said(world: ReplayedWorld) -> None:
    world.assigned = TWO_BUNDLES
    answer = world.answer()
    gone = world.pins["challenger"].face.bundle_id
    manifest = f"manifests/{world.state.keys.catalogue}/{gone}.json"
    (world.state.home / "bundles" / manifest).unlink()
    with pytest.raises(BundleError, match=f"bundle {gone}, which answered request .* cannot be opened"):
        world.replay(answer["request_id"])


def test_both_lists_are_made_of_one_reading_of_the_events(
    world: ReplayedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.assigned = TWO_BUNDLES
    answer = world.answer()
    read: list[Any] = []

    def reading(*asked: Any) -> Any:
        read.append(asked[0])
        return read_days(*asked)

    monkeypatch.setattr("tastemaker_services.remade.read_days", reading)
    assert world.replay(answer["request_id"]).differing == []
    assert len(read) == 1


def test_a_draft_of_a_release_that_did_not_log_both_sides_is_refused(world: ReplayedWorld) -> None:
    world.assigned = TWO_BUNDLES
    answer = world.answer()
    folder = world.state.home / "decisions" / world.state.keys.catalogue
    for part in folder.glob("day=*/part-*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["sides"]), part)
    with pytest.raises(
        DataError,
        match=r"the log does not say what made the two variants' lists of request .*: replay one of this release or a newer",
    ):
        world.replay(answer["request_id"])
