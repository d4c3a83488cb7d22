"""Models that a recipe names beside its own: fitted twice, released with what their sources need."""

import json

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import leave_last
from tastemaker.index.config import IndexConfig
from tastemaker.models.recommender import Askers
from tastemaker.models.sequence import fitting
from tastemaker.models.sequence.sasrec import SasRec
from tastemaker.stages.bundle_sources import index_of
from tastemaker.stages.live import LiveStages
from tastemaker.types import Query
from tastemaker_training import zoo_models
from tastemaker_training.als_index import add_factor_index
from tastemaker_training.artifacts import CHECKPOINTS
from tastemaker_training.recipe import ZooModel
from tastemaker_training.zoo_models import add_zoo_models, fit_zoo_model, load_zoo_model, log_of

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
