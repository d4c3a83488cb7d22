"""What the steps of a training read of the data, and which changes of a recipe make them anew."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tastemaker.config import Settings
from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.log import freeze_log
from tastemaker.data.schema import imported_folder
from tastemaker.errors import DataError
from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.home import Home
from tastemaker_training.artifacts import artifact_name, plain
from tastemaker_training.plan.recipe import Recipe, read_recipe
from tastemaker_training.rows.example_set import ExampleSet
from tastemaker_training.runs.steps import Steps

NOW_MS = 1_700_000_000_000
HOUR = 3600


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def logged(home: Home, folder: Path, *, shown: bool) -> None:
    """Three users who click i0 to i13, one an hour in slots 1 to 14, from the television every third; beside it, from the
    second slot on, ad was shown."""
    rows = ["user_id,item_id,timestamp,kind,position,device"]
    for user in range(3):
        for nth in range(14):
            if shown:
                rows.append(f"u{user},ad,{nth * HOUR - (nth > 0)},impression,{nth + 1},")
            rows.append(f"u{user},i{nth},{nth * HOUR},click,{nth},{'' if nth % 3 else 'tv'}")
    source = folder / "events.csv"
    source.write_text("\n".join(rows) + "\n")
    mapping = ColumnMapping(kind="kind", position="position", device="device")
    save_import(home, "default", import_events(source, mapping, NOW_MS))


def imported(home: Home, folder: Path, *, shown: bool) -> None:
    """Three users who click i0 to i13, one an hour; half an hour and a second before each but the first, ad is shown."""
    rows = ["user_id,item_id,timestamp,kind"]
    for user in range(3):
        for nth in range(14):
            if shown and nth:
                rows.append(f"u{user},ad,{nth * HOUR - HOUR // 2 - 1},impression")
            rows.append(f"u{user},i{nth},{nth * HOUR},click")
    source = folder / "events.csv"
    source.write_text("\n".join(rows) + "\n")
    save_import(home, "default", import_events(source, ColumnMapping(kind="kind"), NOW_MS))


def recipe(**changes: Any) -> Recipe:
    tree = plain(read_recipe("movielens"))
    for path, value in changes.items():
        *groups, last = path.split("__")
        inner = tree
        for group in groups:
            inner = inner[group]
        inner[last] = value
    return Recipe.parse(tree, "recipe of a test")


REJECTED = {
    "two_tower__fit__negatives__popularity": 0.7,
    "two_tower__fit__negatives__rejected": 0.3,
}


def steps(home: Home, **changes: Any) -> Steps:
    return Steps.of(Settings(home=home.root), home, recipe(**changes), 1, dataset=freeze_log(home, "default"))


def names(found: Steps) -> dict[str, str]:
    return {step: artifact_name(*key) for step, key in found._keys.items()}


def rejected_of(found: Steps, fit: str) -> dict[str, list[str]]:
    """The rejected items of an example by its target, which are the same for all users."""
    ids, by_target = found.dataset.item_ids, dict[str, list[str]]()
    for row in pq.read_table(found.examples / fit).to_pylist():
        rejected = [ids[item] for item in row["rejected"]]
        assert by_target.setdefault(ids[row["target"]], rejected) == rejected
    return by_target


def test_examples_know_what_their_users_left_before(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=True)
    found = steps(home, **REJECTED)
    # Of 14 items 4 are train's and 9 the refit's. The last impression before a click was known to be left a second before.
    assert rejected_of(found, "train") == {f"i{n}": ["ad"] * n for n in range(1, 4)}
    assert rejected_of(found, "refit") == {f"i{n}": ["ad"] * n for n in range(1, 9)}


def test_impressions_are_read_only_where_the_recipe_learns_from_them(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=True)
    found = steps(home)
    assert found.rejections is None
    assert rejected_of(found, "refit") == {f"i{n}": [] for n in range(1, 9)}


def test_a_longer_window_knows_less(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=True)
    wide = REJECTED | {"two_tower__fit__negatives__rejected_window_minutes": 31}
    assert rejected_of(steps(home, **wide), "train") == {f"i{n}": ["ad"] * (n - 1) for n in range(1, 4)}


def test_a_recipe_that_learns_from_impressions_needs_some(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=False)
    with pytest.raises(
        DataError,
        match=r"shown and left, for two_tower\.fit\.negatives\.rejected, is 'none in 0 impressions', must be at least 1",
    ):
        steps(home, **REJECTED)
    steps(home)


def test_a_target_that_the_data_lacks_is_refused_before_anything_is_trained(
    home: Home, tmp_path: Path
) -> None:
    imported(home, tmp_path, shown=False)
    with pytest.raises(
        DataError, match=r"target like of the recipe, is 'not in the data', must be one of click: import"
    ):
        steps(home, ranker__model__targets=["click", "like"])
    assert not (home / "checkpoints").exists() or not list((home / "checkpoints").iterdir())


POSITION = {"ranker__model__position": True}


def test_examples_have_the_devices_of_their_targets(home: Home, tmp_path: Path) -> None:
    logged(home, tmp_path, shown=False)
    examples = pq.read_table(steps(home).examples / "refit").to_pylist()
    assert sorted((row["target"], row["device"]) for row in examples) == [
        (n, 0 if n % 3 else 4) for n in range(1, 9) for _ in range(3)
    ]
    targets = ExampleSet(steps(home).examples).validation()[1]
    assert targets.device_rows(2).tolist() == [0, 0, 4, 0, 0]  # i4 to i8


def test_a_request_is_made_from_the_device_of_the_first_held_out_event(home: Home, tmp_path: Path) -> None:
    logged(home, tmp_path, shown=False)
    found = steps(home)
    query = found.asked.query(1)
    assert query.history_L.tolist() == [0, 1, 2, 3]
    assert (query.now_ms, dict(query.context)) == (4 * HOUR * 1000, {})
    found = steps(home, split__num_test=6, split__num_validation=5)
    query = found.asked.query(1)
    assert (query.now_ms, dict(query.context)) == (3 * HOUR * 1000, {"device": "tv"})


def test_candidates_of_a_request_have_the_slots_that_were_logged(home: Home, tmp_path: Path) -> None:
    logged(home, tmp_path, shown=True)
    found = steps(home, **POSITION)
    rows = [found.dataset.item_ids.index(name) for name in ("i9", "i4", "ad", "i8", "i0")]
    slots = found.asked.slots_of(0, np.array(rows, np.int32))
    assert slots is not None
    assert slots.tolist() == [0, 5, 6, 9, 0]  # ad was shown beside i4 first
    assert steps(home).asked.slots_of(0, np.array(rows, np.int32)) is None


def test_a_recipe_that_learns_from_positions_needs_some_of_what_was_left(home: Home, tmp_path: Path) -> None:
    message = r"left, for ranker\.model\.position or click_weights\.position, is 'none in {} impressions', must be at least 1: import"
    imported(home, tmp_path, shown=True)
    with pytest.raises(DataError, match=message.format(39)):
        steps(home, **POSITION)
    logged(home, tmp_path, shown=False)
    with pytest.raises(DataError, match=message.format(0)):
        steps(home, **POSITION)


@pytest.mark.parametrize("model", ["two_tower", "ranker"])
def test_a_recipe_that_reads_devices_needs_some(home: Home, tmp_path: Path, model: str) -> None:
    reading = {f"{model}__model__context": ["hours", "devices"]}
    imported(home, tmp_path, shown=False)
    with pytest.raises(
        DataError, match=rf"feature devices of {model}\.model\.context, is 'unknown in all of the data'"
    ):
        steps(home, **reading)
    logged(home, tmp_path, shown=False)
    steps(home, **reading)


def test_what_is_made_anew(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=True)
    plainly = names(steps(home))
    weighted = names(steps(home, pipeline__ranking__score_weights={"click": 2.0}))
    assert weighted == plainly
    half_life = names(steps(home, pipeline__ranking__half_life=2.0))
    assert {step for step in plainly if half_life[step] != plainly[step]} == {"requests", "ranker"}
    rejecting = names(steps(home, **REJECTED))
    assert {step for step in plainly if rejecting[step] == plainly[step]} == {"memory", "content"}


def test_request_features_and_the_events_behind_them_make_the_ranker_and_its_requests_anew(
    home: Home, tmp_path: Path
) -> None:
    imported(home, tmp_path, shown=True)
    wanted = {"pipeline__hydration__request_features": ["item", "refused"]}
    plainly, reading = (
        names(steps(home, pipeline__hydration__request_features=[])),
        names(steps(home, **wanted)),
    )
    assert {step for step in plainly if reading[step] != plainly[step]} == {"requests", "ranker"}
    assert names(steps(home, **wanted)) == reading
    file = imported_folder(home, "default") / "interactions.parquet"
    table = pq.read_table(file)
    pq.write_table(
        table.filter(pc.field("kind") == "click"), file
    )  # the same dataset: impressions are not in it
    assert names(steps(home, pipeline__hydration__request_features=[])) == plainly
    shown = names(steps(home, **wanted))
    assert {step for step in plainly if shown[step] != reading[step]} == {"requests", "ranker"}


def test_request_features_are_of_the_moment_of_the_first_held_out_event(home: Home, tmp_path: Path) -> None:
    imported(home, tmp_path, shown=True)
    found = steps(home, pipeline__hydration__request_features=["all"])
    assert steps(home, pipeline__hydration__request_features=[]).request_features is None
    known = found.request_features
    assert known is not None
    query = found.asked.query(0)
    # Of 14 items 4 are train, 5 are validation: i4 is held out first, at four o'clock.
    assert (query.user_id, query.now_ms) == ("u0", 4 * HOUR * 1000)
    rows = np.array([found.dataset.item_ids.index(item) for item in ("i3", "i4", "ad")], np.int32)
    named = dict(zip(REQUEST_FEATURES, known(query, rows).T.tolist(), strict=True))
    assert named["item_click_30d"][0] == pytest.approx(
        np.log1p(3 * np.exp(-1 / 720)), rel=1e-6
    )  # of three users
    assert named["item_click_30d"][1] == 0
    hours = [half + 1 / 3600 for half in (0.5, 1.5, 2.5, 3.5)]  # ago, when ad was shown
    expected = np.log1p(sum(np.exp(-ago / 168) for ago in hours))
    assert named["times_shown"] == pytest.approx([0, 0, expected], rel=1e-5)
    assert found._dlrm.dense_features[-len(REQUEST_FEATURES) :] == REQUEST_FEATURES


def test_slots_make_the_ranker_and_its_requests_anew(home: Home, tmp_path: Path) -> None:
    logged(home, tmp_path, shown=True)
    plainly, with_slots = names(steps(home)), names(steps(home, **POSITION))
    assert {step for step in plainly if with_slots[step] != plainly[step]} == {"requests", "ranker"}
