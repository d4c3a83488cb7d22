"""How often an item is to be expected in a batch, learned from the batches themselves, in memory of a fixed size.

For streams whose frequencies change or cannot be counted beforehand; `NegativeSampler` counts where they can.

Shape letters: B items of a batch, S slots, A arrays of slots.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.types import Float32, Int64

_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
"""One for each array of slots; odd, so that a hash is the upper bits of a product [Dietzfelbinger et al. 1997]."""


class StreamingFrequency:
    """Expected number of an item in a batch: one over the mean number of steps between its sightings.

    [Yi et al. 2019, Alg. 2], with its arrays of hashed slots doubled: the larger gap is the one that fewer other items
    fell into. Departures: an item that a batch holds c times has had c gaps of 1/c of the time, so that the expected
    number of a popular item may exceed 1; and a slot's first 1/alpha gaps are averaged evenly, so that nothing remains
    of a starting value. Until then the estimate is sightings over steps: above the truth for an item on the day that it is
    first seen.

    Args:
        num_slots: Power of 2; about twice the items that are seen, or more.
        alpha: Weight of the newest gap: estimates follow changes within about 1/alpha sightings.
    """

    def __init__(self, num_slots: int = 1 << 20, alpha: float = 0.01) -> None:
        assert num_slots > 1, num_slots
        assert num_slots & (num_slots - 1) == 0, num_slots
        assert 0 < alpha < 1, alpha
        self._alpha = alpha
        self._shift = np.uint64(64 - (num_slots.bit_length() - 1))
        shape = (len(_MULTIPLIERS), num_slots)
        self._last_AS = np.full(shape, -1, np.int32)
        self._count_AS = np.zeros(shape, np.int32)
        self._gap_AS = np.zeros(shape, np.float32)
        self._num_steps = 0

    def update(self, item_B: Int64, step: int) -> None:
        """Takes note of a batch. Steps count from 0 and rise."""
        assert step >= self._num_steps, (step, self._num_steps)
        for a, slot_B in enumerate(self._slots(item_B)):
            slot, times = np.unique(slot_B, return_counts=True)
            gap = (step - self._last_AS[a, slot]) / times
            even = times / (self._count_AS[a, slot] + times)
            weight = np.maximum(even, 1 - (1 - self._alpha) ** times)
            self._gap_AS[a, slot] += weight * (gap - self._gap_AS[a, slot])
            self._last_AS[a, slot] = step
            self._count_AS[a, slot] += times.astype(np.int32)
        self._num_steps = step + 1

    def expected(self, item_B: Int64) -> Float32:
        """Expected number of each item in a batch like those so far; less than once so far for an unseen one."""
        gaps = []
        for a, slot_B in enumerate(self._slots(item_B)):
            seen = self._count_AS[a, slot_B] > 0
            gaps.append(np.where(seen, self._gap_AS[a, slot_B], self._num_steps + 1))
        expected_B: Float32 = (1 / np.max(gaps, axis=0)).astype(np.float32)
        return expected_B

    def _slots(self, item_B: Int64) -> Iterator[Int64]:
        item = item_B.astype(np.uint64)
        for multiplier in _MULTIPLIERS:
            yield ((item * np.uint64(multiplier)) >> self._shift).astype(np.int64)

    def state(self) -> dict[str, np.ndarray]:
        """All it has learned, for a checkpoint; the arrays are its own."""
        steps = np.array([self._num_steps])
        return {"last": self._last_AS, "count": self._count_AS, "gap": self._gap_AS, "num_steps": steps}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a `state`.

        Raises:
            CompatibilityError: The state has another number of slots.
        """
        if state["gap"].shape != self._gap_AS.shape:
            raise CompatibilityError(
                "slots of the frequency's state", value=state["gap"].shape[1], limit=self._gap_AS.shape[1],
                mend="resume with the number of slots that it was trained with",
            )  # fmt: skip
        self._last_AS[:], self._count_AS[:], self._gap_AS[:] = state["last"], state["count"], state["gap"]
        self._num_steps = int(state["num_steps"][0])
