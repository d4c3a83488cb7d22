"""Click models in the ranker's place: their rows of the graph's features, and the stage over them."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, TimeRange
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.calibration import Calibration
from tastemaker.models.ctr.kinds import CLICK_MODELS, fit
from tastemaker.models.ctr.model import Labelled
from tastemaker.models.ctr.ranker import ClickRanker, ranking_fields, ranking_rows
from tastemaker.models.rankers import AnyRanker
from tastemaker.stages.ranking import Ranking, RankingConfig, candidate_bags
from tastemaker.types import Candidates, Query

NUM_ITEMS = 12
YEAR_MS = 31_556_952_000
NOON = 1764547200000 + 12 * 3_600_000  # of 1 December 2025, a Monday
ITEMS = pa.table(
    {
        "item_id": [f"i{row}" for row in range(NUM_ITEMS)],
        "title": [f"Title {row}" for row in range(NUM_ITEMS)],
        "category": ["", "Drama", "Comedy"] * 4,
        "tags": [[], ["a"], ["b", "c"]] * 4,
        "created_at_ms": [None if row % 5 == 0 else row * YEAR_MS for row in range(NUM_ITEMS)],
    },
    schema=ITEMS_SCHEMA,
)
SCHEMA = FeatureSchema.fit(ITEMS)
COLUMNS = RankingItems(ItemColumns.from_items(ITEMS, SCHEMA))
CONFIG = RankingConfig(item_ids=True)
SIZES = {
    "num_tags": SCHEMA.num_tags, "num_years": SCHEMA.num_years, "num_categories": SCHEMA.num_categories
}  # fmt: skip
FIELDS = ranking_fields(("one", "two"), **SIZES, context=("hours",), num_items=NUM_ITEMS)
SMALL_FIT = {"epochs": 2, "batch_size": 64}
SMALL = {
    "lambdamart": {"num_trees": 5, "min_rows": 2, "num_threads": 1},
    "dssm": {
        "query_fields": ["history", "query_hours"],
        "item_fields": ["item", "item_tags", "item_categories"],
        "dim": 4,
        "fit": SMALL_FIT,
    },
}


def candidates(seed: int = 0) -> Candidates:
    """All items, with two features that say nothing."""
    zeros = np.zeros(NUM_ITEMS, np.float32)
    features_KF = np.random.default_rng(seed).normal(size=(NUM_ITEMS, 2)).astype(np.float32)
    return Candidates(
        np.arange(NUM_ITEMS, dtype=np.int32),
        zeros,
        np.ones(NUM_ITEMS, np.uint32),
        zeros[:, None],
        features_KF,
    )


def query(*history: int) -> Query:
    return Query(np.array(history, np.int32), k=5, now_ms=NOON)


def labelled(num_requests: int = 30) -> Labelled:
    """Requests of users who have one item and click those of its category."""
    parts, label_N, group_N = [], [], []
    category_I = COLUMNS.columns.category_row_I
    for request in range(num_requests):
        taken, found = request % NUM_ITEMS, candidates(request)
        parts.append((found.features_KF, candidate_bags(COLUMNS, query(taken), found, CONFIG)))
        label_N.append(category_I == category_I[taken])
        group_N.append(np.full(NUM_ITEMS, request))
    bags = {name: Bag.concat([mine[name] for _, mine in parts]) for name in parts[0][1]}
    rows = ranking_rows(FIELDS, np.concatenate([dense for dense, _ in parts]), bags, np.concatenate(group_N))
    return Labelled.of(rows, np.concatenate(label_N))


def fitted(kind: str) -> ClickRanker:
    return ClickRanker(fit(kind, labelled(), SMALL.get(kind, {"dim": 4, "fit": SMALL_FIT})))


def stage(ranker: ClickRanker) -> Ranking:
    return Ranking(ranker, Calibration(slope=2.0), COLUMNS, ("one", "two"), CONFIG)


def test_what_the_graph_knows_becomes_fields_of_the_same_values() -> None:
    found = candidates()
    rows = ranking_rows(FIELDS, found.features_KF, candidate_bags(COLUMNS, query(4, 2), found, CONFIG))
    assert rows.dense_NF.tolist() == found.features_KF.tolist()
    one = {field.name: rows.categorical_NC[:, at].tolist() for at, field in enumerate(FIELDS.categorical)}
    assert one["item"] == list(range(1, NUM_ITEMS + 1))  # row 0 is an item, and value 0 is none
    assert one["item_categories"] == COLUMNS.columns.category_row_I.tolist()  # row 0 is unknown already
    assert one["item_years"] == COLUMNS.columns.year_row_I.tolist()
    assert one["query_hours"] == [13] * NUM_ITEMS  # noon is the thirteenth
    tags = rows.multi["item_tags"]
    assert [tags.value_V[a:b].tolist() for a, b in pairwise(tags.offsets)] == [[], [1], [2, 3]] * 4
    history = rows.multi["history"]
    assert history.value_V.tolist() == [5, 3] * NUM_ITEMS  # oldest first
    # half as much five items back: 2 ** (-1 / 5) : 1
    newest = 1 / (1 + 2**-0.2)
    assert history.weight_V[:2] == pytest.approx([1 - newest, newest], abs=1e-6)
    assert rows.multi["recent_tags"].value_V[:3].tolist() == [1, 2, 3]
    assert rows.multi["recent_tags"].weight_V[:3] == pytest.approx(
        [1 - newest, newest / 2, newest / 2], abs=1e-6
    )


def test_items_that_came_after_the_fit_are_unknown() -> None:
    bags = candidate_bags(COLUMNS, query(), candidates(), CONFIG) | {
        "item": Bag.singles(np.full(NUM_ITEMS, NUM_ITEMS))
    }
    rows = ranking_rows(FIELDS, candidates().features_KF, bags)
    assert set(rows.categorical_NC[:, [one.name for one in FIELDS.categorical].index("item")]) == {0}


@pytest.mark.parametrize("kind", [kind for kind in CLICK_MODELS if kind != "dlrm"])
def test_every_kind_ranks_and_is_the_same_again_from_its_state(kind: str) -> None:
    ranker = fitted(kind)
    queries = [query(1), query(), query(7, 3)]
    found = stage(ranker)(queries, [candidates()] * 3)
    restored = AnyRanker.from_state(ranker.config_dict(), ranker.tensors())
    assert isinstance(restored, ClickRanker)
    again = stage(restored)(queries, [candidates()] * 3)
    for mine, other in zip(found, again, strict=True):
        assert sorted(mine.item_index) == list(range(NUM_ITEMS))
        assert (np.diff(mine.score) <= 0).all()
        assert ((mine.score > 0) & (mine.score < 1)).all()
        assert mine.item_index.tolist() == other.item_index.tolist()
        assert mine.score.tolist() == other.score.tolist()


def test_a_request_is_ranked_as_its_rows_are_scored() -> None:
    ranker, found = fitted("deepfm"), candidates(3)
    (ranked,) = stage(ranker)([query(4)], [found])
    whole = ranking_rows(FIELDS, found.features_KF, candidate_bags(COLUMNS, query(4), found, CONFIG))
    expected_K = Calibration(slope=2.0)(ranker.model.scores(whole))
    assert ranked.score == pytest.approx(expected_K[ranked.item_index], abs=1e-6)


def test_no_candidates_and_no_history_are_no_exception() -> None:
    none = candidates().take(np.empty(0, np.int64))
    ranked = stage(fitted("deepfm"))([query(), query(3)], [none, candidates()])
    assert [len(one) for one in ranked] == [0, NUM_ITEMS]


def test_the_order_in_which_a_recipe_names_the_context_changes_no_field() -> None:
    tables = ("devices", "hours", "weekdays")
    there, back = (ranking_fields(("one", "two"), **SIZES, context=named) for named in (tables, tables[::-1]))
    assert there == back
    rows = labelled(6).rows
    bags = {
        name: Bag.singles(np.ones(len(rows), np.int64)) for name in there.names if name not in there.dense
    }
    model = fit(
        "lr",
        Labelled.of(ranking_rows(back, rows.dense_NF, bags, rows.group_N), labelled(6).label_N),
        {"fit": SMALL_FIT},
    )
    ClickRanker(model).require(SCHEMA)


def test_other_features_and_vocabularies_are_refused() -> None:
    ranker = fitted("lr")
    with pytest.raises(CompatibilityError, match="features of the ranker"):
        Ranking(ranker, Calibration(), COLUMNS, ("one", "three"), CONFIG)
    wider = FeatureSchema.parse(SCHEMA.model_dump(mode="json") | {"tags": ["a", "b", "c", "d"]}, "test")
    with pytest.raises(CompatibilityError, match=r"item_tags 4.*item_tags 3|tags, years and categories"):
        ranker.require(wider)
    with pytest.raises(CompatibilityError, match="target like"):
        Ranking(
            ranker, Calibration(), COLUMNS, ("one", "two"), RankingConfig(item_ids=True, score_weights={"like": 1.0})
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["deepfm", "lambdamart"])
def test_a_bundle_holds_it_where_it_holds_the_dlrm(kind: str, tmp_path) -> None:
    ranker, store = fitted(kind), BundleStore(tmp_path)
    writer = BundleWriter(store, "default")
    writer.add_table("items.parquet", ITEMS)
    writer.add_model("ranker", ranker)
    span = TimeRange(start_ms=1, end_ms=9)
    data = DatasetInfo(fingerprint="f" * 64, retrievers=span, ranker=span)
    bundle = Bundle.open(store, writer.commit(BundleInfo(dataset=data, recipe="test", training_id="t1")))
    assert {"ranker.json", "ranker.safetensors"} <= bundle.manifest.files.keys()
    released = bundle.model("ranker", AnyRanker)
    (mine,), (theirs,) = (stage(one)([query(4)], [candidates()]) for one in (ranker, released))
    assert mine.item_index.tolist() == theirs.item_index.tolist()
    assert mine.score.tolist() == theirs.score.tolist()
