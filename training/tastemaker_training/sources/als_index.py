"""The index of ALS or other factors that a bundle of many items carries. Small catalogues are searched exactly, without one.

Factors differ in length, and the longest are near every query: k-means lists of them must nearly all be read, at a million
items for 10 ms and more. A graph by inner products finds them as hubs; building it takes minutes, which a release has.

Shape letters: B requests, D dimension.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.evaluation.index_queries import queries_of
from tastemaker.index.building import fit_efforts
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import measure
from tastemaker.models.als import Als
from tastemaker.stages.bundle_sources import ALS_INDEX
from tastemaker.types import Float32, Int32

_NUM_QUERIES = 200


class Encoder(Protocol):
    """Makes users' vectors, as serving does."""

    def encode(self, histories: Sequence[Int32]) -> Float32:
        """Vectors (B, D)."""
        ...


class _FoldedIn:
    def __init__(self, model: Als) -> None:
        self._model = model

    def encode(self, histories: Sequence[Int32]) -> Float32:
        """Vectors (B, D) of users, as serving makes them."""
        return self._model.fold_in(histories)


def add_als_index(
    writer: BundleWriter, model: Als, dataset: Dataset, config: IndexConfig | None = None
) -> None:
    """Adds an index of ALS factors, see `add_factor_index`; the model is in the writer already."""
    add_factor_index(writer, "als", _FoldedIn(model), model.item_factors_ID, dataset, ALS_INDEX, config)


def add_factor_index(
    writer: BundleWriter,
    model: str,
    encoder: Encoder,
    factors_ID: Float32,
    dataset: Dataset,
    name: str,
    config: IndexConfig | None = None,
) -> None:
    """Adds an index of factors that finds what the dataset's users are searched by; none where exact search is quick.

    Args:
        writer: Has the model already.
        model: Its name in the bundle.
        encoder: Of the model.
        factors_ID: Of the model's items.
        dataset: Whose users and items.
        name: Of the index.
        config: Up to how many items search is exact, and the recall that is wanted.
    """
    config = config or IndexConfig()
    if dataset.num_items <= config.exact_up_to:
        return
    began, rows = time.perf_counter(), np.arange(dataset.num_items, dtype=np.int32)
    queries = queries_of(encoder, dataset, rows, factors_ID, _NUM_QUERIES)
    built = FaissIndex.build(factors_ID, config.model_copy(update={"kind": "hnsw"}))
    index, _ = fit_efforts(built, queries.vectors_BD, config.recall)
    measured = measure(index, queries.vectors_BD, queries.kind, time.perf_counter() - began)
    writer.add_index(name, index, f"{model}.safetensors", measured=measured)
