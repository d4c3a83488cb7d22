"""Vectors to measure an index with: those that the catalogue's users are searched by, else the items' own with noise.

Shape letters: B queries, L items of a history, D dimension.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tastemaker.bundle.manifest import ITEM_TOWER
from tastemaker.data.log import read_log
from tastemaker.data.schema import Dataset
from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.index.measuring import IndexQueries, perturbed
from tastemaker.types import Float32, Int32

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle

FEWEST_USERS = 50
"""Users below which items stand in for them."""
_MAX_HISTORY = 50


class Encoder(Protocol):
    """Makes vectors of histories."""

    def encode(self, histories: Sequence[Int32]) -> Float32:
        """Vectors (B, D) of histories that are ordered oldest first."""
        ...


class MeanOfItems:
    """The mean of the vectors of a history's items, at length 1: a user where no query tower is."""

    def __init__(self, vectors_ID: Float32) -> None:
        self._vectors_ID = vectors_ID

    def encode(self, histories: Sequence[Int32]) -> Float32:
        """Vectors (B, D)."""
        mean_BD = np.stack([self._vectors_ID[rows].mean(axis=0) for rows in histories])
        length_B1 = np.linalg.norm(mean_BD, axis=1, keepdims=True)
        unit_BD: Float32 = mean_BD / np.maximum(length_B1, np.finfo(np.float32).tiny)
        return unit_BD


def queries_of(
    encoder: Encoder, dataset: Dataset, row_D: Int32, vectors_ID: Float32, num_queries: int
) -> IndexQueries:
    """Vectors of at most so many of the dataset's users, drawn; perturbed items where few users have known items.

    Args:
        encoder: Makes them from rows of the index.
        dataset: Whose users.
        row_D: The index's row of each item of the dataset, -1 for those that it does not know.
        vectors_ID: Of the index.
        num_queries: How many.
    """
    histories = _histories(dataset, row_D, num_queries)
    if len(histories) < FEWEST_USERS:
        return IndexQueries(perturbed(vectors_ID, num_queries), "perturbed-items")
    return IndexQueries(encoder.encode(histories), "users")


def bundle_queries(bundle: "Bundle", name: str, home: Home, num_queries: int) -> IndexQueries:
    """Vectors to search the bundle's index `name` for: of the users that its catalogue's log knows now.

    An index of the item tower is searched by the query tower's vectors, another one by the mean of a history's items.
    """
    vectors_ID = bundle.index(name).vectors()
    try:
        dataset = read_log(home, bundle.manifest.catalogue)
    except DataError:  # a catalogue that has no data here
        return IndexQueries(perturbed(vectors_ID, num_queries), "perturbed-items")
    row_D = np.array(
        [-1 if (row := bundle.index_of(id_)) is None else row for id_ in dataset.item_ids], np.int32
    )
    return queries_of(_encoder(bundle, name, vectors_ID), dataset, row_D, vectors_ID, num_queries)


def _encoder(bundle: "Bundle", name: str, vectors_ID: Float32) -> Encoder:
    info = bundle.manifest.files[name].index
    if info is None or info.tower != ITEM_TOWER or not bundle.has("two_tower.json"):
        return MeanOfItems(vectors_ID)
    from tastemaker.models.two_tower import QueryEncoder

    encoder: Encoder = bundle.towers("two_tower", QueryEncoder)
    return encoder


def _histories(dataset: Dataset, row_D: Int32, most: int) -> list[Int32]:
    """Newest items of drawn users, oldest first."""
    users, begin = np.unique(dataset.user_index, return_index=True)
    end = np.append(begin[1:], len(dataset))
    drawn = np.random.default_rng(0).permutation(len(users))
    found: list[Int32] = []
    for n in drawn:
        rows_L = row_D[dataset.item_index[begin[n] : end[n]]]
        rows_L = rows_L[rows_L >= 0][-_MAX_HISTORY:]
        if len(rows_L):
            found.append(rows_L)
        if len(found) == most:
            break
    return found
