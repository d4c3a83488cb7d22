"""Items that were put after a release, as the models of its sources know them: by what they are, at once."""

from typing import Any

import numpy as np
import pytest
from later_items import LATER, LIKES_T1, NEW, ask, later_models, put, released, score_of, stages
from tagged import NUM_ITEMS

from tastemaker.bundle.part import BundlePart
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.index.sharded import ShardOf
from tastemaker.stages.bundle_zoo import BundledModel, GrowingModel
from tastemaker.stages.live import LiveStages
from tastemaker.stages.overlay import OverlayRows
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return later_models()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


@pytest.mark.parametrize("kind", LATER)
def test_a_put_item_is_proposed_to_who_likes_its_like(
    store: BundleStore, models: dict[str, Any], kind: str
) -> None:
    live = stages(store, models, kind)
    assert NEW not in ask(live).item_index
    live.take(put(1, near="t1", far="t2"))
    found = ask(live)
    assert found.source_mask[found.item_index == NEW] & 1  # the model itself proposes it
    assert score_of(found, NEW) > score_of(found, NEW + 1)
    assert score_of(found, NEW) > score_of(found, 22)  # of the tag t2, and nobody took it either
    says = live.pipeline.say(Query(LIKES_T1, k=5), NEW)[0]
    assert (says.score, live.pipeline.source_names[0]) == (
        pytest.approx(score_of(found, NEW), abs=1e-5),
        f"my-{kind}",
    )


@pytest.mark.parametrize("kind", LATER)
def test_deleted_and_forbidden_items_are_not_proposed(
    store: BundleStore, models: dict[str, Any], kind: str
) -> None:
    live = stages(store, models, kind)
    live.take(put(1, a="t1", b="t1", c="t1"))
    live.take(put(2, order=["a"], a=None))
    allowed = np.arange(NUM_ITEMS + 3) != NEW + 2
    rows = set(ask(live, allowed=allowed, exclude=np.array([7], np.int32)).item_index.tolist())
    assert NEW + 1 in rows
    assert not {NEW, NEW + 2, 7, *LIKES_T1.tolist()} & rows
    live.take(put(3, order=["a"], a="t1"))
    assert NEW in ask(live).item_index


@pytest.mark.parametrize("kind", LATER)
def test_attributes_that_are_put_anew_change_its_vector(
    store: BundleStore, models: dict[str, Any], kind: str
) -> None:
    live = stages(store, models, kind)
    live.take(put(1, a="t1", b="t1"))
    before = live.pipeline
    first = score_of(ask(live), NEW)
    live.take(put(2, order=["a"], a="t3"))
    assert score_of(ask(live), NEW) < first
    again = before.retrieve([Query(LIKES_T1, k=NUM_ITEMS + 5)])[0]
    assert score_of(again, NEW) == first  # who began before goes on with what was


@pytest.mark.parametrize("kind", LATER)
def test_a_history_of_later_items_is_a_history(store: BundleStore, models: dict[str, Any], kind: str) -> None:
    live = stages(store, models, kind)
    live.take(put(1, a="t1", b="t1", c="t2"))
    found = ask(live, [NEW])
    assert NEW not in found.item_index
    assert score_of(found, NEW + 1) > score_of(found, NEW + 2)
    own, others = ([score_of(found, row) for row in rows] for rows in ((1, 5, 9, 13), (2, 6, 10, 14)))
    assert np.mean(own) > np.mean(others)


@pytest.mark.parametrize("kind", LATER)
def test_what_nothing_is_known_of_is_taken_and_has_nothing_to_say(
    store: BundleStore, models: dict[str, Any], kind: str
) -> None:
    live = stages(store, models, kind)
    rows = {"bare": Item(item_id="bare").encode(), "odd": Item(item_id="odd", price=0.0, tags=["?"]).encode()}
    live.take(ItemChanges("L", 1, False, list(rows), rows))
    assert score_of(ask(live), NEW) == 0.0
    assert np.isfinite(ask(live).source_score_KS[:, 0]).all()


def test_models_of_who_took_what_say_nothing_of_it(store: BundleStore, models: dict[str, Any]) -> None:
    live = stages(store, models, "ease", "dropoutnet")
    live.take(put(1, near="t1"))
    found = ask(live)
    assert np.isnan(score_of(found, NEW, 0))
    assert np.isfinite(score_of(found, NEW, 1))


@pytest.mark.parametrize("kind", LATER)
def test_another_bundle_takes_what_was_put(store: BundleStore, models: dict[str, Any], kind: str) -> None:
    put_before = put(3, a="t1", b="t2")
    first = stages(store, models, kind)
    first.take(put_before)
    second = stages(store, models, kind, "ease")
    second.take(ItemChanges("L", 3, True, put_before.order, put_before.rows))
    assert score_of(ask(second), NEW) == pytest.approx(score_of(ask(first), NEW), abs=1e-6)
    second.take(ItemChanges("M", 1, True, ["c"], put(1, c="t1").rows))  # the server lost what it had
    assert NEW + 1 not in ask(second).item_index
    assert score_of(ask(second), NEW) == pytest.approx(score_of(ask(first), NEW), abs=1e-6)


@pytest.mark.parametrize("kind", LATER)
def test_shards_find_it_once(store: BundleStore, models: dict[str, Any], kind: str) -> None:
    ref = released(store, models, kind)
    whole = LiveStages(Bundle.open(store, ref))
    parts = [LiveStages(BundlePart.open_part(store, ref, ShardOf(n, 2))) for n in range(2)]
    for one in (whole, *parts):
        one.take(put(1, a="t1", b="t2", c="t1"))
    query = Query(LIKES_T1, k=10)
    answers = [part.pipeline.shard_answers([query])[0] for part in parts]
    retrieval = whole.pipeline._retrieval
    assert retrieval is not None
    joined = retrieval.merging.whole(query, answers)
    expected = whole.pipeline.retrieve([query])[0]
    assert joined.item_index.tolist() == expected.item_index.tolist()
    np.testing.assert_allclose(joined.source_score_KS, expected.source_score_KS, atol=1e-5)
    assert NEW in joined.item_index


@pytest.mark.parametrize("kind", LATER)
def test_what_the_bundle_has_is_not_copied(models: dict[str, Any], kind: str) -> None:
    """Neither when the first item is put nor when one is put anew: then its vector is another."""

    class Untouched:
        num_items, dim = NUM_ITEMS, models[kind].item_vectors().shape[1]

    growing = GrowingModel(models[kind], Untouched(), None)  # type: ignore[arg-type]
    rows = OverlayRows(NUM_ITEMS, lambda item_id: int(item_id[1:]) if item_id[0] == "i" else None)
    one = growing.after(rows.take(put(1, a="t1")))
    two = growing.after(rows.take(put(2, a="t2", b="t1")))
    assert (len(one.vectors_ND), len(two.vectors_ND)) == (1, 2)
    np.testing.assert_allclose(two.vectors_ND[1], one.vectors_ND[0], atol=1e-6)
    assert not np.allclose(two.vectors_ND[0], one.vectors_ND[0])


@pytest.mark.parametrize("is_part", [False, True])
def test_a_grown_source_looks_up_in_the_vectors_of_its_bundle(
    store: BundleStore, models: dict[str, Any], is_part: bool
) -> None:
    ref = released(store, models, "content-knn")
    bundle = BundlePart.open_part(store, ref, ShardOf(0, 2)) if is_part else Bundle.open(store, ref)
    live = LiveStages(bundle)
    live.take(put(1, near="t1"))
    live.take(put(2, near="t2"))
    assert live._growth is not None
    later = live._growth.after(put(3)).later["my-content-knn"]
    source = BundledModel.read(bundle, "my-content-knn")
    own = source.index.vectors()  # type: ignore[union-attr]
    vectors: Any = source.source(later)._index.vectors()  # type: ignore[union-attr]
    assert np.shares_memory(vectors._first_ID, own)
    assert len(vectors) == len(own) + 1
