"""The DLRM that every contender of the training benchmark trains, and the batches that they see.

Eight tables, single-valued bags, 13 dense features, all pairs' dot products: the shape of the Criteo task with fewer
tables. A contender differs in its `Tables` alone.

Shape letters: B examples, F dense features, D dimension, V vectors that interact, R rows of a table, T tables.
"""

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.models.tables import Jagged, Tables, TableSpec
from tastemaker.types import Int64

IdLaw = Literal["uniform", "zipf"]
Batch = tuple[Tensor, dict[str, Jagged], Tensor]

NUM_TABLES, DIM, NUM_DENSE = 8, 32, 13
BOTTOM, TOP = (64,), (64,)
"""Hidden widths of the two MLPs."""
ZIPF_EXPONENT = 1.05
GLOBAL_BATCH = 4096
WARM_UP_STEPS = 5


def bench_specs(num_rows: int) -> list[TableSpec]:
    return [
        TableSpec(name=f"table_{t}", num_rows=num_rows, dim=DIM, features=(f"feature_{t}",))
        for t in range(NUM_TABLES)
    ]


class BenchDlrm(nn.Module):
    """A DLRM [Naumov et al. 2019] whose forward gives the loss."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables
        num_pairs = NUM_TABLES * (NUM_TABLES + 1) // 2
        self.bottom = _mlp((NUM_DENSE, *BOTTOM, DIM))
        self.top = _mlp((num_pairs + DIM, *TOP, 1))
        self.pairs_2P = torch.tril_indices(NUM_TABLES + 1, NUM_TABLES + 1, offset=-1)

    def forward(self, dense_BF: Tensor, bags: Mapping[str, Jagged], label_B: Tensor) -> Tensor:
        bottom_BD = self.bottom(dense_BF)
        vectors_BVD = torch.stack([bottom_BD, *self.tables.lookup(bags).values()], dim=1)
        dots_BVV = torch.bmm(vectors_BVD, vectors_BVD.transpose(1, 2))
        top_BX = torch.cat([bottom_BD, dots_BVV[:, self.pairs_2P[0], self.pairs_2P[1]]], dim=1)
        return functional.binary_cross_entropy_with_logits(self.top(top_BX).squeeze(1), label_B)


class PlainBags(nn.Module):
    """`Tables` as a plain job has them: whole on every rank, `nn.EmbeddingBag`.

    Unlike `PlainTables` it drops the weights, which are all 1 here, and takes `sparse`: the plain job at its fastest.
    """

    def __init__(self, specs: Sequence[TableSpec], *, sparse: bool) -> None:
        super().__init__()
        self.bags = nn.ModuleDict(
            {
                spec.features[0]: nn.EmbeddingBag(spec.num_rows, spec.dim, mode="sum", sparse=sparse)
                for spec in specs
            }
        )

    def lookup(self, bags: Mapping[str, Jagged]) -> dict[str, Tensor]:
        return {feature: self.bags[feature](bag.values, bag.offsets()) for feature, bag in bags.items()}


def batches(*, law: IdLaw, num_rows: int, num_examples: int, count: int, rank: int) -> list[Batch]:
    """As many batches of this rank; each step has its own, so that no row stays in cache by repetition."""
    random = np.random.default_rng([7, rank])
    lengths, weights = torch.ones(num_examples, dtype=torch.int64), torch.ones(num_examples)
    drawn = []
    for _ in range(count):
        dense_BF = torch.from_numpy(random.standard_normal((num_examples, NUM_DENSE), np.float32))
        label_B = torch.from_numpy((random.random(num_examples) < 0.25).astype(np.float32))
        bags = {
            f"feature_{t}": Jagged(
                torch.from_numpy(ids(random, law, num_rows, num_examples)), lengths, weights
            )
            for t in range(NUM_TABLES)
        }
        drawn.append((dense_BF, bags, label_B))
    return drawn


def ids(random: np.random.Generator, law: IdLaw, num_rows: int, count: int) -> Int64:
    """Rows of a table, int64 (count,): uniform, or by Zipf's law over the table.

    The rank in popularity is not the row: a prime's multiples scatter the popular rows over the table.
    """
    if law == "uniform":
        return random.integers(0, num_rows, count)
    rank = np.searchsorted(_zipf_shares(num_rows), random.random(count))
    return rank * 2_147_483_647 % num_rows


@functools.cache
def _zipf_shares(num_rows: int) -> np.ndarray:
    """Share of the draws that fall on the r most popular rows, for each r."""
    sums = np.cumsum(np.arange(1, num_rows + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
    return sums / sums[-1]


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
