"""What encodes items that were put after a release: the space of a model, kept in its files and read with it or alone."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from later_items import LATER, LIKES_T1, NEW, ask, later_log, later_models, put, released, score_of, stages
from tagged import NUM_ITEMS

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.features.content import space_in
from tastemaker.models.cold.dropoutnet import DropoutNetConfig
from tastemaker.models.cold.later import KnowsLater
from tastemaker.models.log import Askers
from tastemaker.stages import live_items
from tastemaker.stages.live import LiveStages
from tastemaker.types import Float32


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return later_models()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


@pytest.mark.parametrize("kind", LATER)
def test_what_is_known_of_it_is_what_a_training_would_know(models: dict[str, Any], kind: str) -> None:
    model = models[kind]
    assert isinstance(model, KnowsLater)
    items = later_log().items
    assert items is not None
    untaken = items.slice(NUM_ITEMS - 2)
    np.testing.assert_allclose(model.encode_items(untaken), model.item_vectors()[-2:], atol=1e-5)


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
