"""Which items stand against the targets of a batch in the sampled softmax, and how often each was to be expected.

Four kinds are drawn: uniform over the catalogue, by popularity, hard (near a target in the current index) and rejected
(shown to an example's user, seen, and not clicked). The first three are draws for all examples of the batch, and their
log_q is that of the mixture, not of the kind that happened to bring an item: an item counts by its expected number
over all three [Veach and Guibas 1995, balance heuristic; Yang et al. 2020], given which targets were chosen to bring
hard ones. So the sum of exp(logit - log_q) over the draws has as its mean the sum over all items that uniform or
popularity can draw, whatever the shares: hard negatives make that sum less noisy where exp(logit) is large, and leave the
loss's optimum alone [Bengio and Senécal 2008, on adaptive proposals]. Departure from [Xiong et al. 2021], who leave
mined negatives uncorrected. Rejected items are no draws from the catalogue but choices of their user, which
`models.losses` compares with the target alone.

Not for the memory of past batches (`models.cross_batch`) nor for frequencies of a stream (`features.frequency`).

Shape letters: B examples of one rank's step, N draws, M = B + N, I catalogue, H neighbours, V items of all examples,
C targets chosen to bring hard negatives, R draws of one kind.
"""

from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from tastemaker.errors import DataError
from tastemaker.features.rejected import Rejected
from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Int32, Int64

SHARED = -1
"""Owner of an item that stands against all examples."""


class NegativesConfig(Strict):
    """What stands against a target in the sampled softmax. The four shares are of `num_sampled` and add up to 1."""

    num_sampled: int = Field(512, ge=0, description="items that each rank draws and adds to a step")
    uniform: float = Field(0.0, ge=0, le=1, description="share that is drawn evenly over the catalogue")
    popularity: float = Field(1.0, ge=0, le=1, description="share that is drawn by popularity")
    hard: float = Field(0.0, ge=0, le=1, description="share that is near a target; by popularity until mined")
    rejected: float = Field(
        0.0, ge=0, le=1, description="share that was shown, seen, not clicked; by popularity where none was"
    )
    rejected_window_minutes: int = Field(
        30, ge=1, description="time that an item, once seen, has to be taken before it counts as rejected"
    )
    popularity_power: float = Field(0.75, ge=0, le=1, description="exponent of an item's count")
    hard_per_item: int = Field(50, ge=1, description="nearest items that are mined for each item")
    in_batch: bool = Field(True, description="the other examples' targets are negatives too")
    mask_history: bool = Field(False, description="items of a query's own history are no negatives of it")
    frequency: Literal["exact", "streaming"] = Field(
        "exact", description="expected number of an in-batch target: from all examples, or from those so far"
    )
    memory_batches: int = Field(0, ge=0, description="past batches whose targets' vectors are negatives too")
    memory_warmup_steps: int = Field(1000, ge=0, description="steps before the memory is used")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = self.uniform + self.popularity + self.hard + self.rejected
        if abs(total - 1) > 1e-6:
            raise ValueError(f"uniform, popularity, hard and rejected must add up to 1, add up to {total:g}")
        covering = self.numbers["uniform"] + self.numbers["popularity"]
        if not self.in_batch and not covering:
            raise ValueError("without in_batch at least one uniform or popularity item must be drawn")
        if not self.in_batch and (self.memory_batches or self.frequency == "streaming"):
            raise ValueError("memory_batches and frequency streaming are of in-batch targets: set in_batch")
        return self

    @property
    def numbers(self) -> dict[str, int]:
        """How many of each kind are drawn: whole numbers by largest remainder, which add up to `num_sampled`.

        >>> NegativesConfig(num_sampled=5, popularity=0.7, hard=0.3).numbers
        {'uniform': 0, 'popularity': 4, 'hard': 1, 'rejected': 0}
        """
        kinds = ("uniform", "popularity", "hard", "rejected")
        exact = np.array([getattr(self, kind) for kind in kinds]) * self.num_sampled
        number = np.floor(exact + 1e-6).astype(int)
        rest = np.argsort(number - exact, kind="stable")[: self.num_sampled - number.sum()]
        number[rest] += 1
        return dict(zip(kinds, number.tolist(), strict=True))


class Sample(NamedTuple):
    """The items of one rank's step: the B targets, then the draws.

    `log_q_M` is the log of each item's expected number, targets among targets and draws among draws. `owner_M` is the
    one example that an item stands against, `SHARED` where all; an owned item's log_q says nothing and is 0.
    """

    item_M: Int64
    log_q_M: Float32
    owner_M: Int64


class NegativeSampler:
    """Draws negatives; keeps one array of the catalogue's length beside the counts. Thread-safe.

    Args:
        count_I: How often each item is a target.
        config: What to draw.

    Raises:
        DataError: No item is ever a target.
    """

    def __init__(self, count_I: npt.NDArray[np.integer], config: NegativesConfig) -> None:
        assert count_I.ndim == 1, count_I.shape
        self.config = config
        self._count_I = count_I
        self._total = int(count_I.sum())
        if self._total == 0:
            raise DataError("items that are a target", value=0, limit="at least 1", mend="import more events")
        # One longer, so that an item's share is a difference; 0 to the power of 0 is 1, but nobody's target is no draw.
        self._cumulative_I1 = np.zeros(len(count_I) + 1)
        np.power(count_I, config.popularity_power, out=self._cumulative_I1[1:], where=count_I > 0)
        np.cumsum(self._cumulative_I1, out=self._cumulative_I1)
        self._cumulative_I1 /= self._cumulative_I1[-1]

    def __len__(self) -> int:
        return len(self._count_I)

    def draw(
        self,
        generator: np.random.Generator,
        target_B: Int64,
        *,
        neighbour_IH: Int32 | None = None,
        rejected: Rejected | None = None,
    ) -> Sample:
        """The items of a step: a function of the arguments and the generator's state alone.

        Args:
            generator: Of this step, so that a step can be repeated alone: seeded by (seed, epoch, step, rank).
            target_B: The examples' targets.
            neighbour_IH: Each item's nearest others, as mined; unset draws the hard share by popularity.
            rejected: Of these examples; unset draws the rejected share by popularity, as do examples without any.

        Returns:
            Targets and draws. Without `in_batch` the log_q of a target is that of its being drawn, as in a sampled
            softmax to which the target is added.

        Raises:
            DataError: An item that the counts say is never a target is one.
        """
        self._require_counted(target_B)
        numbers = self.config.numbers
        refused_R, owner_R = _refused(generator, numbers["rejected"], len(target_B), rejected)
        near_CH = _near(generator, numbers["hard"], target_B, neighbour_IH)
        num_popular = self.config.num_sampled - numbers["uniform"] - len(near_CH) - len(refused_R)
        shared = [
            generator.integers(len(self), size=numbers["uniform"]),
            self._popular(generator, num_popular),
            _one_of_each(generator, near_CH),
        ]
        item_M = np.concatenate([target_B, *shared, refused_R]).astype(np.int64)
        expected_M = (
            numbers["uniform"] / len(self) + num_popular * self._popularity(item_M) + _times(near_CH, item_M)
        )
        if self.config.in_batch:
            expected_M[: len(target_B)] = len(target_B) * self._count_I[target_B] / self._total
        owner_M = np.full(len(item_M), SHARED, np.int64)
        owner_M[len(item_M) - len(owner_R) :] = owner_R
        expected_M[owner_M != SHARED] = 1.0
        return Sample(item_M, np.log(expected_M).astype(np.float32), owner_M)

    def _popular(self, generator: np.random.Generator, number: int) -> Int64:
        return np.searchsorted(self._cumulative_I1[1:], generator.random(number), side="right")

    def _popularity(self, items_M: Int64) -> Float64:
        share_M: Float64 = self._cumulative_I1[items_M + 1] - self._cumulative_I1[items_M]
        return share_M

    def _require_counted(self, target_B: Int64) -> None:
        unknown = target_B[self._count_I[target_B] == 0]
        if len(unknown):
            raise DataError(
                f"count of item {unknown[0]}, which is a target", value=0, limit="at least 1",
                mend="count the examples that are trained on",
            )  # fmt: skip


def _refused(
    generator: np.random.Generator, number: int, num_examples: int, rejected: Rejected | None
) -> tuple[Int64, Int64]:
    """One rejected item of each of `number` examples, and whose it is; examples that have none bring none."""
    if rejected is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    assert len(rejected.lengths_B) == num_examples, (len(rejected.lengths_B), num_examples)
    owner_R = generator.integers(num_examples, size=number)
    owner_R = owner_R[rejected.lengths_B[owner_R] > 0]
    begin_B = np.cumsum(rejected.lengths_B) - rejected.lengths_B
    return rejected.item_V[begin_B[owner_R] + generator.integers(rejected.lengths_B[owner_R])], owner_R


def _near(generator: np.random.Generator, number: int, target_B: Int64, neighbour_IH: Int32 | None) -> Int32:
    """The neighbours (C, H) of `number` of the targets; each row will bring one hard negative."""
    if neighbour_IH is None:
        return np.empty((0, 1), np.int32)
    near_CH: Int32 = neighbour_IH[generator.choice(target_B, number)]
    return near_CH


def _one_of_each(generator: np.random.Generator, near_CH: Int32) -> Int32:
    return near_CH[np.arange(len(near_CH)), generator.integers(near_CH.shape[1], size=len(near_CH))]


def _times(near_CH: Int32, items_M: Int64) -> Float64:
    """Expected number of each item where every row of `near_CH` brings one of its items.

    >>> _times(np.array([[5, 6], [6, 7]]), np.array([6, 5, 9, 6]))
    array([1. , 0.5, 0. , 1. ])
    """
    unique_U, inverse_M = np.unique(items_M, return_inverse=True)
    at = np.minimum(np.searchsorted(unique_U, near_CH.ravel()), len(unique_U) - 1)
    found = at[unique_U[at] == near_CH.ravel()]
    times_U: Float64 = np.bincount(found, minlength=len(unique_U)) / near_CH.shape[1]
    return times_U[inverse_M]
