"""Item vectors of past batches as further negatives: more of them, for no pass through the item tower.

Shape letters: K batches kept, B items of a batch, D dimension, M items remembered.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tastemaker.errors import CompatibilityError


class Remembered(NamedTuple):
    """Past items and their vectors as they were; `log_q_M` is the log of each one's expected number among them."""

    vector_MD: Tensor
    item_M: Tensor
    log_q_M: Tensor


class CrossBatchMemory:
    """A ring of the newest batches' items [Wang et al. 2020; Wang et al. 2021], one for each rank.

    Vectors age by up to K steps, which matters while they still move fast: so nothing is shown before `warmup_steps`
    batches went in [Wang et al. 2020 begin after 1000], and few batches are better than many where tables learn fast. A
    batch that is pushed must be of one kind of draw. Not thread-safe.

    Args:
        num_batches: Batches kept; 0 remembers nothing.
        batch_size: Items of each batch.
        dim: Length of a vector.
        warmup_steps: Batches before the memory is shown.
        device: Where it lies.
    """

    def __init__(
        self,
        num_batches: int,
        batch_size: int,
        dim: int,
        *,
        warmup_steps: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._warmup_steps = warmup_steps
        self._vector_KBD = torch.zeros(num_batches, batch_size, dim, device=device)
        self._item_KB = torch.zeros(num_batches, batch_size, dtype=torch.int64, device=device)
        self._log_q_KB = torch.zeros(num_batches, batch_size, device=device)
        self._num_pushed = 0

    @torch.no_grad()
    def push(self, vector_BD: Tensor, item_B: Tensor, log_q_B: Tensor) -> None:
        """Puts a batch in the place of the oldest; no gradient flows into it.

        Args:
            vector_BD: One vector per item.
            item_B: Which item each is, int64.
            log_q_B: Log of each item's expected number in such a batch.
        """
        if len(self._item_KB):
            place = self._num_pushed % len(self._item_KB)
            self._vector_KBD[place], self._item_KB[place], self._log_q_KB[place] = vector_BD, item_B, log_q_B
        self._num_pushed += 1

    def view(self) -> Remembered:
        """What is remembered; nothing before the warm-up ends. The tensors change with the next `push`.

        Over k batches an item is expected k times as often as in one, hence log k is added to its log_q.
        """
        kept = min(self._num_pushed, len(self._item_KB))
        if self._num_pushed < self._warmup_steps:
            kept = 0
        return Remembered(
            self._vector_KBD[:kept].flatten(0, 1),
            self._item_KB[:kept].flatten(),
            self._log_q_KB[:kept].flatten() + math.log(max(kept, 1)),
        )

    def state(self) -> dict[str, Tensor]:
        """All it holds, for a checkpoint of this rank; the tensors are its own."""
        pushed = torch.tensor([self._num_pushed])
        return {
            "vector": self._vector_KBD, "item": self._item_KB, "log_q": self._log_q_KB, "num_pushed": pushed,
        }  # fmt: skip

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a `state`. On another number of ranks batches have another size: start empty there.

        Raises:
            CompatibilityError: The state is of other batches.
        """
        if state["vector"].shape != self._vector_KBD.shape:
            raise CompatibilityError(
                "cross-batch memory (batches, items, dimension)", value=tuple(state["vector"].shape),
                limit=tuple(self._vector_KBD.shape), mend="start with an empty memory",
            )  # fmt: skip
        self._vector_KBD.copy_(state["vector"])
        self._item_KB.copy_(state["item"])
        self._log_q_KB.copy_(state["log_q"])
        self._num_pushed = int(state["num_pushed"])
