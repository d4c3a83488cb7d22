"""Vectors that the index benchmark searches: a trained model's, grown to any number, and hard ones.

Shape letters: I items, U users, D dimension.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from commands import tastemaker
from report import OUT

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config_sources import load_settings
from tastemaker.evaluation.index_queries import bundle_queries
from tastemaker.home import Home
from tastemaker.index.config import QueryKind
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.registry.client import Registry
from tastemaker.types import Float32

DIM = 64
_KEPT = OUT / "ann-vectors.npz"
_NEIGHBOUR = 10
_AT_ONCE = 200_000


class Vectors(NamedTuple):
    """Items, and what is searched for."""

    item_ID: Float32
    query_UD: Float32
    queries: QueryKind


def hard(num_items: int, num_queries: int) -> Vectors:
    """Independent normal numbers: no clusters, and no query is near anything."""
    rng = np.random.default_rng(0)
    item_ID = rng.standard_normal((num_items, DIM), np.float32)
    return Vectors(item_ID, rng.standard_normal((num_queries, DIM), np.float32), "random")


def trained(num_items: int, num_queries: int) -> Vectors:
    """Items of MovieLens by the packaged recipe's item tower, grown to the number, and its users by the query tower.

    Further items are trained ones with noise, at length 1. The noise of each is as long as the way from its item to the
    tenth nearest, so that neighbourhoods become denser by as much as the catalogue is larger and keep their shape.
    """
    item_ID, user_UD = _of_a_training()
    return Vectors(grown(item_ID, num_items), user_UD[:num_queries], "users")


def grown(item_ID: Float32, num_items: int) -> Float32:
    """The items, cut or with further ones behind them."""
    if num_items <= len(item_ID):
        return item_ID[:num_items]
    rng, num = np.random.default_rng(0), len(item_ID)
    rows, _ = FaissIndex.build(item_ID).search(item_ID, _NEIGHBOUR + 1)
    distance_I = np.linalg.norm(item_ID[rows[:, -1]] - item_ID, axis=1)
    grown_ID = np.empty((num_items, item_ID.shape[1]), np.float32)
    grown_ID[:num] = item_ID
    for begin in range(num, num_items, _AT_ONCE):
        of = np.arange(begin, min(begin + _AT_ONCE, num_items)) % num
        noise = rng.standard_normal((len(of), item_ID.shape[1]), np.float32)
        noise *= (distance_I[of] / np.linalg.norm(noise, axis=1))[:, None]
        moved = item_ID[of] + noise
        grown_ID[begin : begin + len(of)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return grown_ID


def _of_a_training() -> tuple[Float32, Float32]:
    """Vectors of items and users; trained once, `make clean` forgets them."""
    if not _KEPT.exists():
        print("  training the packaged recipe on MovieLens", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            tastemaker(home, "data", "import")
            tastemaker(home, "train", "movielens", "--workers", "1")
            tastemaker(home, "publish", "movielens")
            item_ID, user_UD = _vectors_of(home)
        _KEPT.parent.mkdir(exist_ok=True)
        np.savez(_KEPT, items=item_ID, users=user_UD)
    with np.load(_KEPT) as kept:
        return kept["items"], kept["users"]


def _vectors_of(folder: Path) -> tuple[Float32, Float32]:
    settings = load_settings(None, flags={"home": str(folder)})
    home = Home.open(folder)
    version = Registry(settings, home).versions(settings.catalogue)[-1]
    bundle = Bundle.open(BundleStore.of(settings, home), version.ref)
    queries = bundle_queries(bundle, "index.faiss", home, 1000)
    assert queries.kind == "users", queries.kind
    return bundle.index().vectors().copy(), queries.vectors_BD
