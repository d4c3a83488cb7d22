"""Searching item vectors that lie on several ranks gives what searching all of them gives."""

import numpy as np
import pytest
from ranks import main, run_ranks

from tastemaker.types import Query

NUM_ITEMS, DIM = 37, 5


def vectors():
    return np.random.default_rng(4).normal(size=(NUM_ITEMS, DIM)).astype(np.float32)


def queries():
    random = np.random.default_rng(5)
    return [
        Query(
            random.choice(NUM_ITEMS, 6, replace=False).astype(np.int32),
            exclude=random.choice(NUM_ITEMS, 3, replace=False).astype(np.int32),
        )
        for _ in range(7)
    ]


def encoded(queries):
    """Stands in for a query tower."""
    return np.stack([vectors()[query.history_L].mean(axis=0) for query in queries])


def search(k):
    import torch

    from tastemaker_training.distributed.spread import SpreadIndex

    calls = []

    def encode(rows):
        calls.append(len(rows))
        return torch.from_numpy(vectors()[rows])

    index = SpreadIndex(encode, NUM_ITEMS)
    np.testing.assert_array_equal(index.whole(), vectors())
    found = index.recommend(lambda asked: torch.from_numpy(encoded(asked)), queries(), k)
    for query, score_I, items in zip(queries(), encoded(queries()) @ vectors().T, found, strict=True):
        score_I[np.concatenate([query.history_L, query.exclude])] = -np.inf
        allowed = np.flatnonzero(score_I > -np.inf)
        expected = allowed[np.argsort(-score_I[allowed], kind="stable")][:k]
        assert items.tolist() == expected.tolist()
    every = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, calls)
    assert all(theirs == calls for theirs in every)  # look-ups are for all ranks to make alike


@pytest.mark.parametrize(("num_ranks", "k"), [(1, 10), pytest.param(3, 10, marks=pytest.mark.slow), (2, 100)])
def test_a_spread_index_finds_what_one_index_finds(num_ranks, k):
    run_ranks(__file__, num_ranks, "search", k=k)


if __name__ == "__main__":
    main(globals())
