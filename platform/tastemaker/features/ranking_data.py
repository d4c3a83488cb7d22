"""What the ranker learns from: whole requests of hydrated candidates, labelled by what their users took next.

Candidates come from retrievers fitted before the labels' time, labels are items that those retrievers have not seen:
a source's score must mean the same here as when it serves. Not for hydration itself (a stage) or for losses (models).

Shape letters: N candidates of all requests, K of one, F dense features, T targets, G requests (groups).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import (
    POSITION,
    Bag,
    RankingBatch,
    without_context,
    without_records,
)
from tastemaker.types import Bool, Candidates, Float32, Int32, Int64

Target = Literal["click", "like", "purchase", "watch"]
TARGETS: tuple[Target, ...] = get_args(Target)
CLICK: Target = "click"


@dataclass(frozen=True)
class RankingData:
    """Requests with at least one candidate, one after the other.

    `label_NT` has a column for each of `targets`, NaN where a label is unknown; a click is always known. `num_missed`
    counts items that users took and no source proposed: they are no positives here, as the ranker can never see them.
    `weight_N` is how much each candidate counts should it be a click; unset, all count alike.
    """

    dense_NF: Float32
    bags: tuple[dict[str, Bag], ...]
    label_NT: Float32
    offsets_G1: Int64
    targets: tuple[Target, ...] = (CLICK,)
    num_missed: int = 0
    weight_N: Float32 | None = None

    @classmethod
    def build(
        cls,
        candidates: Sequence[Candidates],
        bags: Sequence[Mapping[str, Bag]],
        taken: Sequence[Int32],
        outcomes: Sequence[Mapping[Target, Float32]] | None = None,
    ) -> "RankingData":
        """Training data of requests.

        Args:
            candidates: Hydrated, one per request.
            bags: The candidates' table rows by feature, one per request, one bag per candidate.
            taken: Items that each request's user took next: the clicks.
            outcomes: For each request, by target, what became of each of the `taken`: see `features.outcomes`. A
                candidate that was not taken was not liked or bought either, and was watched for an unknown time.

        Raises:
            DataError: No candidate of any request was taken.
        """
        rows = [g for g, found in enumerate(candidates) if len(found)]
        further = outcomes or [{}] * len(candidates)
        labels = [_labels(candidates[g].item_index, taken[g], further[g]) for g in rows]
        num_hits = int(sum(label_KT[:, 0].sum() for label_KT in labels))
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
        return cls(
            np.concatenate(dense),
            tuple(dict(bags[g]) for g in rows),
            np.concatenate(labels),
            _offsets([len(label_KT) for label_KT in labels]),
            (CLICK, *further[0]),
            sum(len(np.unique(items)) for items in taken) - num_hits,
        )

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.offsets_G1) - 1

    @property
    def clicks(self) -> Float32:
        """Labels (N,) of clicks."""
        return self.label_NT[:, self.targets.index(CLICK)]

    @property
    def request_index(self) -> Int64:
        """The request of each candidate, (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets_G1))

    @property
    def num_positives(self) -> Int64:
        """Clicks of each request, (G,)."""
        return np.add.reduceat(self.clicks, self.offsets_G1[:-1]).astype(np.int64)

    def for_targets(self, targets: Sequence[Target]) -> "RankingData":
        """The same requests with the labels of `targets`, in that order.

        Raises:
            DataError: The data has no label of one of them.
        """
        require_targets(targets, self.targets)
        columns = [self.targets.index(target) for target in targets]
        return replace(self, label_NT=self.label_NT[:, columns], targets=tuple(targets))

    def require(self, features: Sequence[str]) -> None:
        """Refuses features of one row a candidate, context and position, that are unknown for all of them.

        Raises:
            DataError: One is.
        """
        for feature in features:
            if not any(feature in bags and bags[feature].values.any() for bags in self.bags):
                raise DataError(
                    f"feature {feature} of the recipe", value="unknown in all of the data",
                    limit="known for some of it", mend="import it, or take it out of ranker.model",
                )  # fmt: skip

    def with_clicks(self) -> "RankingData":
        """The requests that have a click: those that a loss over whole requests learns from.

        Raises:
            DataError: There is none.
        """
        groups = np.flatnonzero(self.num_positives > 0)
        if not len(groups):
            raise DataError(
                "requests with a click to fit on", value=0, limit="at least 1", mend="import more users"
            )
        return self.take(groups)

    def without_positions(self) -> "RankingData":
        """The same requests as serving sees them: no candidate has a slot yet."""
        hidden = [
            bags | {POSITION: Bag.singles(np.zeros(len(bags[POSITION].lengths), np.int64))}
            if POSITION in bags
            else bags
            for bags in self.bags
        ]
        return replace(self, bags=tuple(hidden))

    def without_records(self, nobody_F: Float32, share: float, seed: int) -> "RankingData":
        """The same requests, about `share` of them as if their user's record were unknown.

        Args:
            nobody_F: See `features.request_features.of_nobody`.
            share: 0 hides none, 1 all.
            seed: Decides which.
        """
        hidden_G = np.random.default_rng([seed, 3]).random(len(self)) < share
        return replace(self, dense_NF=without_records(self.dense_NF, nobody_F, hidden_G[self.request_index]))

    def take(self, groups: Sequence[int] | Int64, keep_N: Bool | None = None) -> "RankingData":
        """The requests at `groups`, in that order, with those of their candidates that `keep_N` names; unset keeps all."""
        parts = [np.arange(self.offsets_G1[g], self.offsets_G1[g + 1]) for g in groups]
        bags = [self.bags[g] for g in groups]
        if keep_N is not None:
            masks = [keep_N[part] for part in parts]
            parts = [part[mask] for part, mask in zip(parts, masks, strict=True)]
            bags = [
                {name: bag.kept(mask) for name, bag in mine.items()}
                for mine, mask in zip(bags, masks, strict=True)
            ]
        rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
        offsets_G1 = _offsets([len(part) for part in parts])
        weight_N = None if self.weight_N is None else self.weight_N[rows]
        return RankingData(
            self.dense_NF[rows], tuple(bags), self.label_NT[rows], offsets_G1, self.targets, weight_N=weight_N
        )

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
        return -(-len(self) // (requests_per_batch * num_ranks))

    def batches(
        self,
        requests_per_batch: int,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        seed: int = 0,
        epoch: int = 0,
        negative_share: float = 1.0,
        hidden_share: float = 0.0,
        nobody_F: Float32 | None = None,
        hidden_records: float = 0.0,
    ) -> Iterator[RankingBatch]:
        """One epoch of this rank, in an order that `seed` and `epoch` decide alone, as they do all that is drawn.

        Every rank gets the same number of batches of the same B (sharded tables need it). Together the ranks see every
        request once; the first requests of the order come again where the number does not divide.

        Args:
            requests_per_batch: Requests of a batch.
            rank: This rank.
            num_ranks: All ranks.
            seed: Of the run.
            epoch: From 0.
            negative_share: Each candidate without a click is kept with this probability, each with a click always.
            hidden_share: Share of requests whose context and positions are unknown in this epoch.
            nobody_F: See `features.request_features.of_nobody`; unset hides no record.
            hidden_records: Share of requests whose user's record is unknown in this epoch.
        """
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(self))
        steps = self.num_batches(requests_per_batch, num_ranks)
        order = np.resize(order, steps * requests_per_batch * num_ranks)
        draws = np.random.default_rng([seed, 2, epoch])
        hidden_G = draws.random(len(self)) < hidden_share
        unknown_G = np.random.default_rng([seed, 4, epoch]).random(len(self)) < hidden_records
        keep_N = None
        sizes_G = np.diff(self.offsets_G1)
        if negative_share < 1.0:
            keep_N = (self.clicks > 0) | (draws.random(len(self.label_NT)) < negative_share)
            sizes_G = np.add.reduceat(keep_N.astype(np.int64), self.offsets_G1[:-1])
        num_rows = requests_per_batch * max(int(sizes_G.max()), 1)
        for groups in order.reshape(steps, num_ranks, requests_per_batch)[:, rank]:
            part = self.take(groups, keep_N)
            batch = without_context(part.batch(num_rows=num_rows), hidden_G[groups])
            if nobody_F is not None and unknown_G[groups].any():
                batch = batch.without_records(nobody_F, unknown_G[groups])
            yield batch

    def batch(self, num_rows: int | None = None) -> RankingBatch:
        """All requests as one batch, padded to `num_rows` candidates; unset does not pad."""
        num_rows = len(self.label_NT) if num_rows is None else num_rows
        missing = num_rows - len(self.label_NT)
        return RankingBatch(
            np.pad(self.dense_NF, ((0, missing), (0, 0))),
            {name: Bag.concat([bags[name] for bags in self.bags]).padded(num_rows) for name in self.bags[0]},
            np.pad(self.label_NT, ((0, missing), (0, 0))),
            self.offsets_G1,
            None if self.weight_N is None else np.pad(self.weight_N, (0, missing)),
        )


def require_targets(wanted: Sequence[Target], known: Sequence[Target]) -> None:
    """Refuses targets of which the data tells nothing.

    Raises:
        DataError: One is.
    """
    for target in wanted:
        if target not in known:
            raise DataError(
                f"target {target} of the recipe", value="not in the data", limit=f"one of {', '.join(known)}",
                mend="import events that tell of it, or take it out of ranker.model.targets",
            )  # fmt: skip


def _labels(item_K: Int32, taken: Int32, outcome: Mapping[Target, Float32]) -> Float32:
    """Click and further targets (K, T) of one request's candidates."""
    label_KT = np.zeros((len(item_K), 1 + len(outcome)), np.float32)
    label_KT[:, 0] = np.isin(item_K, taken)
    for column, (target, values) in enumerate(outcome.items(), 1):
        if target == "watch":
            label_KT[:, column] = np.nan
        for item, value in zip(taken, values, strict=True):
            label_KT[item_K == item, column] = value
    return label_KT


def _offsets(lengths: Sequence[int]) -> Int64:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
