"""What the ranker learns from: whole requests of hydrated candidates, labelled by what their users took next.

Candidates come from retrievers fitted before the labels' time, labels are items that those retrievers have not seen:
a source's score must mean the same here as when it serves. Not for hydration itself (a stage) or for losses (models).

Shape letters: N candidates of all requests, K of one, B of one batch, F dense features, G requests (groups), V values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tastemaker.errors import DataError
from tastemaker.types import Bool, Candidates, Float32, Int32, Int64


class Bag(NamedTuple):
    """Bags of table rows end to end: the next `lengths[b]` of `values` are bag b's, each with its weight."""

    values: Int64
    lengths: Int64
    weights: Float32

    @classmethod
    def concat(cls, parts: Sequence["Bag"]) -> "Bag":
        """The bags of all parts, in order."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def padded(self, num_bags: int) -> "Bag":
        """The same bags, and empty ones up to `num_bags`."""
        missing = np.zeros(num_bags - len(self.lengths), np.int64)
        return Bag(self.values, np.concatenate([self.lengths, missing]), self.weights)


class RankingBatch(NamedTuple):
    """Whole requests, padded with empty candidates behind the last to a fixed B.

    `offsets_G1[g]:offsets_G1[g + 1]` are request g's candidates; what lies behind `offsets_G1[-1]` is padding.
    """

    dense_BF: Float32
    bags: dict[str, Bag]
    label_B: Float32
    offsets_G1: Int64


@dataclass(frozen=True)
class RankingData:
    """Requests with at least one candidate, one after the other.

    `num_missed` counts targets that no source proposed: they are no positives here, as the ranker can never see them.
    """

    dense_NF: Float32
    bags: tuple[dict[str, Bag], ...]
    label_N: Float32
    offsets_G1: Int64
    num_missed: int = 0

    @classmethod
    def build(
        cls,
        candidates: Sequence[Candidates],
        bags: Sequence[Mapping[str, Bag]],
        targets: Sequence[Int32],
    ) -> "RankingData":
        """Training data of requests.

        Args:
            candidates: Hydrated, one per request.
            bags: The candidates' table rows by feature, one per request, one bag per candidate.
            targets: Items that each request's user took next.

        Raises:
            DataError: No candidate of any request is a target.
        """
        rows = [g for g, found in enumerate(candidates) if len(found)]
        labels = [np.isin(candidates[g].item_index, targets[g]).astype(np.float32) for g in rows]
        num_hits = int(sum(label.sum() for label in labels))
        if not num_hits:
            raise DataError(
                "the ranker's positives", value=0, limit="at least 1",
                mend="give users more events, or the sources larger quotas",
            )  # fmt: skip
        dense = []
        for g in rows:
            features_KF = candidates[g].features_KF
            assert features_KF is not None, "hydrate first"
            dense.append(features_KF)
        num_targets = sum(len(np.unique(target)) for target in targets)
        offsets_G1 = np.concatenate([[0], np.cumsum([len(label) for label in labels])]).astype(np.int64)
        chosen = tuple(dict(bags[g]) for g in rows)
        return cls(np.concatenate(dense), chosen, np.concatenate(labels), offsets_G1, num_targets - num_hits)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.offsets_G1) - 1

    @property
    def num_positives(self) -> Int64:
        """Positives of each request, (G,)."""
        return np.add.reduceat(self.label_N, self.offsets_G1[:-1]).astype(np.int64)

    def take(self, groups: Sequence[int] | Int64) -> "RankingData":
        """The requests at `groups`, in that order."""
        parts = [np.arange(self.offsets_G1[g], self.offsets_G1[g + 1]) for g in groups]
        rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
        offsets_G1 = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        bags = tuple(self.bags[g] for g in groups)
        return RankingData(self.dense_NF[rows], bags, self.label_N[rows], offsets_G1)

    def split(self, share: float, seed: int) -> tuple["RankingData", "RankingData"]:
        """Two parts of whole requests: one to fit on, and at least one request, about `share`, held out of it.

        Raises:
            DataError: There are fewer than two requests.
        """
        if len(self) < 2:
            raise DataError(
                "requests to split", value=len(self), limit="at least 2", mend="import more users"
            )
        order_G = np.random.default_rng([seed, 0]).permutation(len(self))
        num_held = min(max(1, round(share * len(self))), len(self) - 1)
        return self.take(np.sort(order_G[num_held:])), self.take(np.sort(order_G[:num_held]))

    def num_batches(self, requests_per_batch: int, num_ranks: int = 1) -> int:
        """Steps of one epoch, the same on every rank."""
        return -(-int(self._useful.sum()) // (requests_per_batch * num_ranks))

    def batches(
        self, requests_per_batch: int, *, rank: int = 0, num_ranks: int = 1, seed: int = 0, epoch: int = 0
    ) -> Iterator[RankingBatch]:
        """One epoch of this rank: requests with a positive, in an order that `seed` and `epoch` decide alone.

        Every rank gets the same number of batches of the same B (sharded tables need it). Together the ranks see every
        request once; the first requests of the order come again where the number does not divide.
        """
        order = np.random.default_rng([seed, 1, epoch]).permutation(np.flatnonzero(self._useful))
        steps = self.num_batches(requests_per_batch, num_ranks)
        order = np.resize(order, steps * requests_per_batch * num_ranks)
        num_rows = requests_per_batch * int(np.diff(self.offsets_G1).max())
        for groups in order.reshape(steps, num_ranks, requests_per_batch)[:, rank]:
            yield self.batch(groups, num_rows)

    def batch(self, groups: Sequence[int] | Int64, num_rows: int | None = None) -> RankingBatch:
        """The requests at `groups`, padded to `num_rows` candidates; unset does not pad."""
        part = self.take(groups)
        num_rows = len(part.label_N) if num_rows is None else num_rows
        missing = num_rows - len(part.label_N)
        names = part.bags[0]
        return RankingBatch(
            np.pad(part.dense_NF, ((0, missing), (0, 0))),
            {name: Bag.concat([bags[name] for bags in part.bags]).padded(num_rows) for name in names},
            np.pad(part.label_N, (0, missing)),
            part.offsets_G1,
        )

    @property
    def _useful(self) -> Bool:
        return self.num_positives > 0
