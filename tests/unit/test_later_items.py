"""Items that were put after a release, as the models of its sources know them: by what they are, at once."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.part import BundlePart
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.features.content import space_in
from tastemaker.index.sharded import ShardOf
from tastemaker.models import zoo
from tastemaker.models.cold.dropoutnet import DropoutNetConfig
from tastemaker.models.cold.later import KnowsLater
from tastemaker.models.log import Askers, Log
from tastemaker.models.zoo import Packed
from tastemaker.stages import live_items
from tastemaker.stages.bundle_zoo import BundledModel, GrowingModel
from tastemaker.stages.live import LiveStages
from tastemaker.stages.overlay import OverlayRows
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Float32, Query

NUM_USERS = 60
CONTENT = {"dim": 16, "metadata_dim": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    "dropoutnet": {
        "base": {"kind": "als", "config": {"dim": 8, "alpha": 4.0, "iterations": 5}}, "content": CONTENT, "hidden": 32,
        "fit": {"epochs": 25, "batch_users": 32, "batch_items": 64, "learning_rate": 0.003},
    },
    "content-knn": {"content": CONTENT},
    "ease": {},
}  # fmt: skip
LIKES_T1 = np.array([1, 5, 9], np.int32)
NEW = NUM_ITEMS


@pytest.fixture(scope="module")
def log() -> Log:
    """Each user takes items of one tag alone; that of the last two, i22 and i23, nobody took."""
    draws, taken = np.random.default_rng(0), []
    for user in range(NUM_USERS):
        taken.append(draws.permutation(np.arange(user % 4, NUM_ITEMS - 2, 4))[:4])
    return Log.of(
        np.repeat(np.arange(NUM_USERS), 4), np.concatenate(taken), num_users=NUM_USERS, num_items=NUM_ITEMS,
        timestamp_ms_N=np.arange(4 * NUM_USERS), items=items_table(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(log: Log) -> dict[str, Any]:
    return {kind: zoo.fit(kind, log, settings).without_users() for kind, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


def released(store: BundleStore, models: dict[str, Any], *kinds: str) -> Any:
    def add(writer: Any, als: Any) -> None:
        del als
        for kind in kinds:
            writer.add_model(f"my-{kind}", Packed(models[kind]))

    sources = (*(f"my-{kind}" for kind in kinds), "popular")
    return write_bundle(store, sources=sources, add_more=add)


def stages(store: BundleStore, models: dict[str, Any], *kinds: str) -> LiveStages:
    return LiveStages(Bundle.open(store, released(store, models, *kinds)))


def put(epoch: int, order: Sequence[str] = (), **tags: str | None) -> ItemChanges:
    rows = {
        name: None if tag is None else Item(item_id=name, category=f"c{tag[1:]}", tags=[tag]).encode()
        for name, tag in tags.items()
    }
    return ItemChanges("L", epoch, False, list(order or tags), rows)


def score_of(found: Candidates, row: int, column: int = 0) -> float:
    (at,) = np.flatnonzero(found.item_index == row)
    return float(found.source_score_KS[at, column])


def ask(live: LiveStages, history: Sequence[int] = (1, 5, 9), **more: Any) -> Candidates:
    query = Query(np.array(history, np.int32), k=NUM_ITEMS + 5, **more)
    return live.pipeline.retrieve([query])[0]


LATER = ["dropoutnet", "content-knn"]


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
def test_what_is_known_of_it_is_what_a_training_would_know(
    models: dict[str, Any], log: Log, kind: str
) -> None:
    model = models[kind]
    assert isinstance(model, KnowsLater)
    assert log.items is not None
    untaken = log.items.slice(NUM_ITEMS - 2)
    np.testing.assert_allclose(model.encode_items(untaken), model.item_vectors()[-2:], atol=1e-5)


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
def test_a_heavy_encoder_runs_elsewhere(
    store: BundleStore, models: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vectors are looked up by the model's own space; while there is none the item is as unknown."""
    monkeypatch.setattr(live_items, "is_heavy", lambda _: True)
    bundle = Bundle.open(store, released(store, models, kind))
    name = f"my-{kind}"
    space = space_in(bundle.json(f"{name}.json")["model"], bundle.tensors(f"{name}.safetensors"))
    assert space is not None
    assert space.fingerprint == models[kind].space.fingerprint
    made: dict[str, Float32] = {}

    def content_of(fingerprint: str, dim: int, ids: Sequence[str]) -> Float32:
        assert fingerprint == space.fingerprint
        return np.stack([made.get(item_id, np.zeros(dim, np.float32)) for item_id in ids])

    live = LiveStages(bundle, content_of=content_of)
    live.take(put(1, near="t1"))
    assert score_of(ask(live), NEW) == 0.0
    made["near"] = space.encode(pa.table({"item_id": ["near"], "category": ["c1"], "tags": [["t1"]]}))[0]
    live.take(put(2, near="t1"))  # as `write_vectors` tells those who follow
    assert score_of(ask(live), NEW) > score_of(ask(live), 22)


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


def test_a_space_of_a_model_is_read_without_it(models: dict[str, Any]) -> None:
    for kind in LATER:
        model = models[kind]
        tensors = model.tensors()
        found = space_in(model.config_dict(), tensors)
        assert found is not None
        assert found.fingerprint == model.space.fingerprint
        for own in found.tensors().values():  # it keeps nothing of the model's file
            assert not any(np.shares_memory(own, given) for given in tensors.values())


def test_later_items_change_nobody_who_took_none(models: dict[str, Any]) -> None:
    askers = Askers.strangers([LIKES_T1, np.empty(0, np.int32)])
    for kind in LATER:
        model = models[kind]
        later = model.later_features(
            pa.table({"item_id": ["x"], "tags": [["t2"]]}), np.ones((1, model.space.dim), np.float32)
        )
        np.testing.assert_array_equal(
            model.with_later(later).user_vectors(askers), model.user_vectors(askers)
        )


def test_a_model_that_was_saved_without_its_space_knows_what_it_knew(
    store: BundleStore, models: dict[str, Any]
) -> None:
    """The first releases wrote content neighbours so."""
    new = models["content-knn"]
    tensors = {name: new.tensors()[name] for name in ("vectors", "popular")}
    old = type(new).from_state(new.config_dict(), tensors)
    assert (old.config_dict(), old.tensors().keys()) == (new.config_dict(), tensors.keys())
    bundle = Bundle.open(store, released(store, {"content-knn": old}, "content-knn"))
    assert (
        space_in(bundle.json("my-content-knn.json")["model"], bundle.tensors("my-content-knn.safetensors"))
        is None
    )
    live = LiveStages(bundle)
    live.take(put(1, near="t1"))
    found = ask(live, [*LIKES_T1, NEW])
    assert NEW not in found.item_index
    wanted = ask(stages(store, models, "content-knn"))
    assert found.item_index.tolist() == wanted.item_index.tolist()


def test_the_release_before_reads_what_this_one_writes(models: dict[str, Any]) -> None:
    """It parses these configs strictly, and of content neighbours looks at two tensors alone."""
    content = models["content-knn"]
    assert content.config_dict().keys() == {"content"}
    assert content.config_dict()["content"].keys() == {
        "encoder", "dim", "text_weight", "metadata_dim", "metadata_weight", "vectors"
    }  # fmt: skip
    assert {"vectors", "popular"} <= content.tensors().keys()
    dropoutnet = models["dropoutnet"].config_dict()["config"]
    assert dropoutnet.keys() == {
        "base", "content", "hidden", "dropout", "cold_scale", "fit", "seed"
    }  # fmt: skip
    assert dropoutnet["cold_scale"] > 0
    assert DropoutNetConfig(cold_exposure=0.4).model_dump()["cold_exposure"] == 0.4


def test_a_space_whose_config_stands_beside_the_models_is_read(models: dict[str, Any]) -> None:
    new = models["content-knn"]
    tensors = new.tensors()
    kept = json.loads(tensors.pop("content.kept").tobytes())
    found = type(new).from_state({"config": new.config_dict(), "content": kept}, tensors)
    assert found.space.fingerprint == new.space.fingerprint
    assert found.config_dict() == new.config_dict()
