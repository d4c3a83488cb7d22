"""Models of the zoo that a recipe names under `models`: fitted twice like the other retrievers, and released where a source is one.

The first fit is on train; where a model holds items out to know when to stop, its second fit, on train with validation, takes
as many epochs as were best. Not for what the models are (`tastemaker.models.zoo`).

Shape letters: N rows.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories, Split
from tastemaker.home import write_json
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.zoo import Packed, ZooModel, model_class
from tastemaker.stages.bundle_zoo import index_of
from tastemaker.types import Float32, Int32
from tastemaker_training.artifacts import CHECKPOINTS, load_tensors, save_tensors
from tastemaker_training.sources.als_index import add_factor_index

FITS = ("train", "refit")
"""Folders of the two fits: on train, and on train with validation."""
_CONFIG, _TENSORS, _CURVE = "model.json", "model.safetensors", "losses.json"


def fit_zoo_model(
    dataset: Dataset, split: Split, asked: ZooModel, folder: Path, users: pa.Table | None = None
) -> None:
    """Fits a model twice and writes both into `folder`; fits that were broken off go on where their kind can.

    Args:
        dataset: What it learns from.
        split: Of it.
        asked: Which model.
        folder: Of the artifact.
        users: What is known of each user; unset, nothing.

    Raises:
        DataError: The data has nothing that it could learn from.
    """
    cls = model_class(asked.kind)
    config: Any = cls.Config.parse(asked.config, f"model {asked.kind}")
    losses = {}
    for fit, histories in zip(FITS, (split.train, split.train_validation), strict=True):
        model = cls.resume_fit(log_of(dataset, histories, users), config, folder / CHECKPOINTS / fit)
        _save(folder / fit, Packed(model))
        losses[fit], config = list(model.losses), model.refit_config()
    write_json(folder / _CURVE, losses)


def load_zoo_model(folder: Path, fit: str) -> Recommender:
    """One of the two fits."""
    config = json.loads((folder / fit / _CONFIG).read_text(encoding="utf-8"))
    return Packed.from_state(config, load_tensors(folder / fit / _TENSORS))


def _save(folder: Path, packed: Packed) -> None:
    folder.mkdir(exist_ok=True)
    write_json(folder / _CONFIG, packed.config_dict())
    save_tensors(folder / _TENSORS, packed.tensors())


def log_of(dataset: Dataset, histories: Histories, users: pa.Table | None = None) -> Log:
    """Some of a dataset's rows as models learn from them; a row's value is that of the user's first of the item."""
    key_N = dataset.user_index.astype(np.int64) * dataset.num_items + dataset.item_index
    key, first = np.unique(key_N, return_index=True)
    user_N = histories.user_index
    at_N = np.searchsorted(key, user_N.astype(np.int64) * dataset.num_items + histories.item_index)
    return Log.of(
        user_N, histories.item_index, num_users=dataset.num_users, num_items=dataset.num_items,
        value_N=dataset.value[first[at_N]], timestamp_ms_N=histories.timestamp_ms, items=dataset.items,
        users=users,
    )  # fmt: skip


def add_zoo_models(
    writer: BundleWriter, models: Mapping[str, Recommender], sources: Sequence[str], dataset: Dataset
) -> None:
    """Adds the models that are sources, without rows of users, which no source asks for.

    With an index of their items where the catalogue is too large to search exactly.
    """
    for name in sources:
        if name not in models:
            continue
        model = models[name].without_users()
        writer.add_model(name, Packed(model))
        vectors_ID = model.item_vectors()
        if vectors_ID is not None:
            add_factor_index(writer, name, _Encoder(model), vectors_ID, dataset, index_of(name))


class _Encoder:
    """Vectors of histories, as serving makes them."""

    def __init__(self, model: Recommender) -> None:
        self._model = model

    def encode(self, histories: Sequence[Int32]) -> Float32:
        """Vectors (B, D)."""
        vector_BD = self._model.user_vectors(Askers.strangers(histories))
        assert vector_BD is not None, "who has item vectors has users' vectors"
        return vector_BD
