"""Models that a recipe names beside its own: fitted twice, released with what their sources need."""

import json

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import leave_last
from tastemaker.features.columns import FeatureSchema
from tastemaker.features.vocabulary import Vocabulary, VocabularyConfig
from tastemaker.index.config import IndexConfig
from tastemaker.models.cold.attributes import demographics
from tastemaker.models.dlrm import DlrmConfig
from tastemaker.models.log import Askers
from tastemaker.models.sequence import fitting
from tastemaker.models.sequence.sasrec import SasRec
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.models.zoo import ZooModel
from tastemaker.stages.bundle_zoo import index_of
from tastemaker.stages.live import LiveStages
from tastemaker.stages.loading import BundleParts
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.types import Query
from tastemaker_training.artifacts import CHECKPOINTS, save_model
from tastemaker_training.plan.recipe import MemoryConfig, Recipe
from tastemaker_training.runs.step_keys import step_keys
from tastemaker_training.sources import zoo_models
from tastemaker_training.sources.als_index import add_factor_index
from tastemaker_training.sources.fitted import Fitted
from tastemaker_training.sources.memory import fit_memory
from tastemaker_training.sources.zoo_models import add_zoo_models, fit_zoo_model, load_zoo_model, log_of

NUM_USERS, EACH = 40, 8
ASKED = ZooModel(
    kind="sasrec",
    config={"dim": 8, "fit": {"epochs": 9, "patience": 2, "batch_size": 8, "learning_rate": 0.01}},
)


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    items = np.concatenate([random.permutation(NUM_ITEMS)[:EACH] for _ in range(NUM_USERS)])
    num = len(items)
    return Dataset(
        user_ids=[f"u{n}" for n in range(NUM_USERS)], item_ids=[f"i{n}" for n in range(NUM_ITEMS)],
        user_index=np.repeat(np.arange(NUM_USERS), EACH).astype(np.int32), item_index=items.astype(np.int32),
        timestamp_ms=np.arange(num), value=np.arange(num, dtype=np.float32), kind_index=np.zeros(num, np.int8),
        slot=np.zeros(num, np.int32), device_row=np.zeros(num, np.int8), items=items_table(), fingerprint="f" * 64,
    )  # fmt: skip


def test_a_log_has_the_rows_of_a_split_with_their_values(dataset):
    split = leave_last(dataset, 2, 1)
    log = log_of(dataset, split.train)
    kept = np.arange(len(dataset)) % EACH < EACH - 3
    assert log.value_N.tolist() == dataset.value[kept].tolist()
    assert log.item_N.tolist() == dataset.item_index[kept].tolist()
    assert (log.num_users, log.num_items) == (NUM_USERS, NUM_ITEMS)


def test_the_refit_takes_as_many_epochs_as_were_best_on_more_data(dataset, tmp_path):
    fit_zoo_model(dataset, leave_last(dataset, 2, 1), ASKED, tmp_path)
    first, second = (load_zoo_model(tmp_path, fit) for fit in ("train", "refit"))
    assert isinstance(first, SasRec)
    assert isinstance(second, SasRec)
    losses = json.loads((tmp_path / "losses.json").read_text())
    assert first.best_epoch <= len(losses["train"])
    assert len(losses["refit"]) == second.best_epoch == first.best_epoch
    assert second.config.fit.patience is None
    askers = Askers.strangers([np.array([1, 2], np.int32)])
    assert (first.scores(askers) != second.scores(askers)).any()


def test_a_fit_that_was_broken_off_goes_on(dataset, tmp_path, monkeypatch):
    split = leave_last(dataset, 2, 1)
    fit_zoo_model(dataset, split, ASKED, tmp_path / "whole")
    epoch, seen = fitting._epoch, []

    def breaks(*arguments):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(arguments[-1])
        return epoch(*arguments)

    monkeypatch.setattr(fitting, "_epoch", breaks)
    with pytest.raises(KeyboardInterrupt):
        fit_zoo_model(dataset, split, ASKED, tmp_path / "broken")
    monkeypatch.setattr(
        fitting, "_epoch", lambda *arguments: (seen.append(arguments[-1]), epoch(*arguments))[1]
    )
    fit_zoo_model(dataset, split, ASKED, tmp_path / "broken")
    assert seen[:3] == [1, 2, 3]  # epochs 1 and 2 were not done again
    assert (tmp_path / "broken" / CHECKPOINTS / "train").exists()  # artifacts remove it once all is there
    for fit in ("train", "refit"):
        files = [tmp_path / name / fit / "model.safetensors" for name in ("whole", "broken")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_model_without_checkpoints_is_fitted_too(dataset, tmp_path):
    fit_zoo_model(dataset, leave_last(dataset, 2, 1), ZooModel(kind="item-knn"), tmp_path)
    assert load_zoo_model(tmp_path, "refit").kind == "item-knn"


@pytest.mark.parametrize("exact_up_to", [NUM_ITEMS, NUM_ITEMS - 1])
def test_a_large_catalogue_has_an_index_that_answers_alike(dataset, tmp_path, monkeypatch, exact_up_to):
    fit_zoo_model(dataset, leave_last(dataset, 2, 1), ASKED, tmp_path / "model")
    model = load_zoo_model(tmp_path / "model", "refit")
    config = IndexConfig(exact_up_to=exact_up_to, recall=1.0)
    monkeypatch.setattr(
        zoo_models, "add_factor_index", lambda *arguments: add_factor_index(*arguments, config)
    )

    def add(writer, als):
        del als
        add_zoo_models(writer, {"sequence": model, "unused": model}, ["popular", "sequence"], dataset)

    store = BundleStore(tmp_path / "bundles")
    bundle = Bundle.open(store, write_bundle(store, sources=("sequence", "popular"), add_more=add))
    assert bundle.has(index_of("sequence")) == (exact_up_to < NUM_ITEMS)
    assert not bundle.has("unused.json")
    (found,) = LiveStages(bundle).pipeline.retrieve([Query(np.array([1, 5], np.int32), k=5)])
    by_model = np.argsort(-found.source_score_KS[:, 0], kind="stable")[:5]
    expected, _ = model.recommend(Askers.strangers([np.array([1, 5], np.int32)]), 5)
    assert found.item_index[by_model].tolist() == expected[0].tolist()


def test_what_is_released_knows_no_user_and_proposes_as_it_did(dataset, tmp_path):
    asked = ZooModel(kind="bpr", config={"dim": 4, "epochs": 3})
    fit_zoo_model(dataset, leave_last(dataset, 2, 1), asked, tmp_path)
    model = load_zoo_model(tmp_path, "refit")
    assert model.tensors()["users"].shape == (NUM_USERS, 4)

    def add(writer, als):
        del als
        add_zoo_models(writer, {"sequence": model}, ["sequence"], dataset)

    store = BundleStore(tmp_path / "bundles")
    bundle = Bundle.open(store, write_bundle(store, sources=("sequence", "popular"), add_more=add))
    shapes = {name: value.shape for name, value in bundle.tensors("sequence.safetensors").items()}
    assert not any(NUM_USERS in shape for shape in shapes.values()), shapes
    history = np.array([1, 5], np.int32)
    (found,) = LiveStages(bundle).pipeline.retrieve([Query(history, k=5)])
    expected = model.score(Askers.strangers([history]), [found.item_index])[0]
    np.testing.assert_allclose(found.source_score_KS[:, 0], expected, atol=1e-5)  # the index's own products


@pytest.fixture
def fitted(dataset, tmp_path) -> Fitted:
    """Retrievers as a run leaves them; the two-tower has learned nothing."""
    split, schema = leave_last(dataset, 2, 1), FeatureSchema.fit(dataset.items)
    for name in ("memory", "towers", "sequence", "neighbours"):
        (tmp_path / name).mkdir()
    memory = MemoryConfig.parse({"als": {"dim": 4, "iterations": 2}, "half_lives": [2.0]}, "a test")
    fit_memory(dataset, split, memory, tmp_path / "memory", [None] * NUM_USERS)
    config = TwoTowerConfig(dim=4, hidden=4)
    tower = TwoTower(config, two_tower_specs(config, schema)).eval()
    times = np.zeros(NUM_ITEMS)
    vocabulary = Vocabulary.fit(dataset.item_ids, times + 1, times, 0, VocabularyConfig())
    for name, model in {"two_tower": tower, "vocabulary": vocabulary}.items():
        save_model(tmp_path / "towers" / "refit", name, model)
    for name, kind in (("sequence", ASKED), ("neighbours", ZooModel(kind="item-knn"))):
        fit_zoo_model(dataset, split, kind, tmp_path / name)
    models = {name: tmp_path / name for name in ("sequence", "neighbours")}
    indexes = (IndexConfig(), IndexConfig())
    return Fitted.load(dataset, tmp_path / "memory", tmp_path / "towers", "refit", None, indexes, models)


def test_what_is_released_retrieves_what_was_evaluated(fitted, tmp_path):
    named = [{"name": name, "quota": 8} for name in ("two_tower", "sequence", "popular")]
    config = PipelineConfig.parse({"retrieval": {"sources": named, "num_candidates": 20}}, "a test")
    queries = [Query(np.array([1, 5, 9], np.int32), k=4), Query(np.empty(0, np.int32), k=4)]
    evaluated = fitted.retrieval(config)(queries)
    store = BundleStore(tmp_path / "bundles")
    writer = BundleWriter(store, "default")
    fitted.add_to(writer, config)
    writer.add_json("pipeline.json", config.model_dump(mode="json"))
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="test", training_id="t1")
    bundle = Bundle.open(store, writer.commit(info))
    assert bundle.has("sequence.safetensors")
    assert not bundle.has("neighbours.json")  # it was compared, and is no source
    for mine, released in zip(evaluated, BundleParts(bundle).retrieval()(queries), strict=True):
        assert mine.item_index.tolist() == released.item_index.tolist()
        np.testing.assert_allclose(mine.source_score_KS, released.source_score_KS, atol=1e-5)
    assert np.isfinite(evaluated[0].source_score_KS[:, 1]).all()
    assert np.isnan(evaluated[1].source_score_KS[:, 1]).all()  # a model of sequences needs a history


def test_a_recipes_models_name_what_its_requests_and_comparison_are_made_of():
    def keys(extra):
        recipe = Recipe.parse({"name": "mine", "pipeline": {"retrieval": {"sources": [{"name": "popular"}]}}} | extra, "a test")  # fmt: skip
        dlrm = DlrmConfig(dense_features=("popular_z",), num_tags=1, num_years=1, num_categories=1)
        nothing = {
            "rejections": None,
            "slots": None,
            "events": None,
            "attributes": None,
            "warm_start": None,
            "click_weights": None,
        }
        return step_keys(recipe, "f" * 64, dlrm, homes={}, **nothing)

    plain, compared = keys({}), keys({"models": {"other": {"kind": "item-knn"}}})
    sources = [{"name": "popular"}, {"name": "other"}]
    proposing = keys(
        {"models": {"other": {"kind": "item-knn"}}, "pipeline": {"retrieval": {"sources": sources}}}
    )
    assert plain["requests"] == compared["requests"] != proposing["requests"]
    assert plain["solo"] != compared["solo"] == proposing["solo"]
    changed = keys({"models": {"other": {"kind": "item-knn", "config": {"num_neighbours": 7}}}})
    assert changed["model other"] != compared["model other"] == proposing["model other"]


def test_a_model_that_reads_attributes_is_made_anew_when_they_change():
    def keys(*groups):
        models = {"models": {"new": {"kind": "melu"}, "old": {"kind": "item-knn"}}}
        pipeline = {"pipeline": {"retrieval": {"sources": [{"name": "popular"}]}}}
        recipe = Recipe.parse({"name": "mine"} | pipeline | models, "a test")
        dlrm = DlrmConfig(dense_features=("popular_z",), num_tags=1, num_years=1, num_categories=1)
        nothing = dict.fromkeys(("rejections", "slots", "events", "warm_start", "click_weights"))
        return step_keys(recipe, "f" * 64, dlrm, homes={}, attributes=demographics(groups), **nothing)

    before, same, after = keys("18-24/f", None), keys("18-24/f", None), keys("25-34/f", None)
    assert before["model new"] == same["model new"] != after["model new"]
    assert before["model old"] == after["model old"]
