"""Sources of a bundle over a catalogue that changes: nearby, recent and popular know what was put, and weights hold."""

import json

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, open_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.errors import CompatibilityError
from tastemaker.stages.live import LiveStages
from tastemaker.stages.policy import StagePolicy
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Query

HYBRID = [
    {"name": "two_tower", "quota": 15, "weight": 0.5},
    {"name": "als", "quota": 15, "weight": 0.3},
    {"name": "trending", "quota": 15, "weight": 0.2},
]
BERLIN = {"location": "52.52,13.41"}


def put(epoch: int, item_id: str, **fields: object) -> ItemChanges:
    text = Item(item_id=item_id, tags=["t1"], **fields).encode()  # type: ignore[arg-type]
    return ItemChanges("L", epoch, False, [item_id], {item_id: text})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


def of_source(live: LiveStages, name: str, query: Query) -> list[int]:
    """Rows that the source proposed, among the candidates."""
    (found,) = live.pipeline.retrieve([query])
    bit = live.pipeline.source_names.index(name)
    return found.item_index[(found.source_mask >> bit & 1).astype(bool)].tolist()


def test_an_item_put_near_the_request_is_proposed_and_moves_with_it(store: BundleStore) -> None:
    live = LiveStages(open_bundle(store, sources=("two_tower", "nearby", "popular")))
    query = Query(np.array([1, 5], np.int32), k=5, context=BERLIN)
    assert of_source(live, "nearby", query) == []
    live.take(put(1, "cafe", location={"lat": 52.5, "lon": 13.4}))
    assert of_source(live, "nearby", query) == [NUM_ITEMS]
    live.take(put(2, "i7", location={"lat": 52.51, "lon": 13.4}))
    assert sorted(of_source(live, "nearby", query)) == [7, NUM_ITEMS]
    live.take(put(3, "cafe", location={"lat": -33.9, "lon": 151.2}))
    assert of_source(live, "nearby", query) == [7]
    assert len(live.pipeline.recommend([query])[0]) == 5  # the ranker reads none of it


def test_the_neighbours_of_an_item_that_was_just_put(store: BundleStore) -> None:
    """Item i has tag t{i % 4}; the new one has t1, and was taken last."""
    live = LiveStages(
        open_bundle(store, sources=("recent", "popular"), exploration={"share": 0.0}),
    )
    live.take(put(1, "new"))
    query = Query(np.array([2, NUM_ITEMS], np.int32), k=5)
    (found,) = live.pipeline.retrieve([query])
    by_recent = np.argsort(-found.source_score_KS[:, 0], kind="stable")[:5]
    assert {row % 4 for row in found.item_index[by_recent].tolist()} == {1}


def test_popular_answers_alike_before_and_after_items_are_put(store: BundleStore) -> None:
    live = LiveStages(open_bundle(store, sources=("popular",)))
    query = Query(np.empty(0, np.int32), k=NUM_ITEMS)
    before = live.pipeline.retrieve([query])[0]
    live.take(put(1, "new"))
    after = live.pipeline.retrieve([Query(np.empty(0, np.int32), k=NUM_ITEMS + 1)])[0]
    assert after.item_index[:-1].tolist() == before.item_index.tolist()
    assert after.item_index[-1] == NUM_ITEMS
    assert after.source_score_KS[-1, 0] == 0


def weighted(found: Candidates, weights: list[float]) -> np.ndarray:
    score = found.source_score_KS
    z = (score - score.mean(0)) / np.where(score.std(0) > 0, score.std(0), 1)
    return z @ np.array(weights)


def test_a_hybrid_is_the_weighted_sum_and_a_policy_weighs_anew(store: BundleStore) -> None:
    live = LiveStages(open_bundle(store, sources=("two_tower", "als", "trending"), retrieval_sources=HYBRID))
    history = np.array([1, 5], np.int32)
    (found,) = live.pipeline.retrieve([Query(history, k=24)])
    np.testing.assert_allclose(found.score, weighted(found, [0.5, 0.3, 0.2]), atol=1e-5)
    policy = StagePolicy(source_weights={"trending": 1.0, "als": 0.0, "unknown": 5.0}).dump()
    (found,) = live.pipeline.retrieve([Query(history, k=24, policy=policy)])
    np.testing.assert_allclose(found.score, weighted(found, [0.5, 0.0, 1.0]), atol=1e-5)


def test_a_source_that_the_ranker_was_not_trained_with_is_refused_unless_it_says_so(
    store: BundleStore,
) -> None:
    """The config of a bundle is changed after its training."""
    bundle = open_bundle(store, sources=("two_tower", "popular"))

    def changed(**source: object) -> LiveStages:
        config = json.loads(json.dumps(bundle.json("pipeline.json")))
        config["retrieval"]["sources"].append({"name": "recent", "quota": 5, **source})
        other = Bundle(bundle._store, bundle.ref, bundle.manifest)
        other._kept["pipeline.json"] = config
        return LiveStages(other)

    with pytest.raises(CompatibilityError, match=r"features of the ranker, is .*recent_z"):
        changed()
    query = Query(np.array([1, 5], np.int32), k=5)
    live = changed(ranked=False)
    assert of_source(live, "recent", query)
    assert len(live.pipeline.recommend([query])[0]) == 5


def test_items_table_of_the_bundle_has_no_places() -> None:
    assert "latitude" not in items_table().column_names
