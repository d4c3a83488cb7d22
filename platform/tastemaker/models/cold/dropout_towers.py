"""The two networks of a DropoutNet, and how they learn. Not for what goes into them (`dropoutnet`).

Shape letters: B people of a step, N items of a step, C content features, D dimension.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tastemaker.errors import TrainingError
from tastemaker.models.cold.passes import batches
from tastemaker.models.layers import mlp
from tastemaker.models.log import Log
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Int64


class DropoutFitConfig(Strict):
    """The fit of the networks."""

    epochs: int = Field(20, ge=1, description="passes over the users, of 8 steps at least")
    batch_users: int = Field(64, ge=1, description="users of a step")
    batch_items: int = Field(512, ge=2, description="items of a step, half of them those that its users took")
    learning_rate: float = Field(0.001, gt=0, description="step size of Adam")
    weight_decay: float = Field(0.0, ge=0, description="penalty on the networks' weights")


@dataclass(frozen=True, slots=True)
class Known:
    """What goes into a tower: collaborative vectors, zeros where there is none, and content."""

    vector_ND: Float32
    content_NC: Float32

    def at(self, rows: Int64) -> "Known":
        """Some of them."""
        return Known(self.vector_ND[rows], self.content_NC[rows])

    def without_vectors(self, gone_N: Bool) -> "Known":
        """The same, but for the collaborative vectors of some."""
        return Known(np.where(gone_N[:, None], np.float32(0), self.vector_ND), self.content_NC)

    def without_content(self, gone_N: Bool) -> "Known":
        """The same, but for the content of some."""
        return Known(self.vector_ND, np.where(gone_N[:, None], np.float32(0), self.content_NC))


class Tower(nn.Module):
    """Gives a vector in the collaborative space: what is there, plus a network of it and the content.

    [Volkovs et al. 2017, Sec. 4.1] has the network alone; with what is there beside it the network begins as the base model.

    Args:
        dim: D.
        num_content: C.
        hidden: Width of the hidden layer.
        scale: Root mean square length of the collaborative vectors, which the network sees at length 1.
    """

    def __init__(self, dim: int, num_content: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.network = mlp((dim + 1 + num_content, hidden, dim), 0.0)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, vector_ND: Tensor, content_NC: Tensor) -> Tensor:
        """(N, D)."""
        is_there_N1 = (vector_ND != 0).any(dim=1, keepdim=True).to(vector_ND.dtype)
        seen_NX = torch.cat([vector_ND / self.scale, is_there_N1, content_NC], dim=1)
        return vector_ND + self.scale * self.network(seen_NX)  # type: ignore[no-any-return]

    def vectors(self, known: Known) -> Float32:
        """(N, D), without a gradient."""
        with torch.inference_mode():
            found: Float32 = self(
                torch.from_numpy(known.vector_ND), torch.from_numpy(known.content_NC)
            ).numpy()
        return found


class Towers(nn.Module):
    """That of users and that of items."""

    def __init__(self, users: Tower, items: Tower) -> None:
        super().__init__()
        self.users, self.items = users, items

    @classmethod
    def of(cls, dim: int, num_content: tuple[int, int], hidden: int, scales: tuple[float, float]) -> Self:
        """With C and scale of users and of items."""
        users, items = (
            Tower(dim, num, hidden, scale) for num, scale in zip(num_content, scales, strict=True)
        )
        return cls(users, items)

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], dim: int, hidden: int) -> Self:
        """What `tensors` gave; a tensor that is missing is a KeyError."""
        widths = [tensors[f"{side}.network.0.weight"].shape[1] - dim - 1 for side in ("users", "items")]
        towers = cls.of(dim, (widths[0], widths[1]), hidden, (1.0, 1.0))
        state = {name: torch.from_numpy(np.array(tensors[name])) for name in towers.state_dict()}
        towers.load_state_dict(state, assign=True)
        return towers


class Learner:
    """Learns to give, of what is left of users and items, the products that the base model gives of all that is known.

    A step takes some users and items; the squared error of all their products is what it lowers [Volkovs et al. 2017, Eq. 2]. Of a
    share `dropout` of the items the collaborative vector is left out; of users it is left out for as many, with half of whom also
    all content, and of half of the others it is that of a few of their items [ibid., Sec. 4.2: dropout and transform].

    Args:
        log: Who took what.
        items: Whole, of all items.
        users: Whole, of all users.
        few: The same of users who have taken but a few of what they took.
        dropout: Share.
        held_I: Items of the log that nothing is learned from.
    """

    def __init__(
        self, log: Log, items: Known, users: Known, few: Known, dropout: float, held_I: Bool
    ) -> None:
        self._log, self._items, self._users, self._few, self._dropout = log, items, users, few, dropout
        self._offsets, self._held_I = log.offsets, held_I
        self._learned_U = np.flatnonzero(np.diff(self._offsets))
        self._learned_I = np.flatnonzero((np.bincount(log.item_N, minlength=log.num_items) > 0) & ~held_I)

    def fit(self, towers: Towers, config: DropoutFitConfig, seed: int) -> list[float]:
        """Fits in place; gives each epoch's error, as a share of the mean square of the products.

        Raises:
            TrainingError: The error is not a number.
        """
        draws, losses = np.random.default_rng((seed, 1)), []
        optimizer = torch.optim.Adam(
            towers.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        scale = self._mean_square()
        with seeded(seed, 2):
            for _ in range(config.epochs):
                total, num = 0.0, 0
                for user_B in batches(self._learned_U, config.batch_users, draws):
                    error = (
                        self._error(towers, user_B, self._draw_items(user_B, config, draws), draws) / scale
                    )
                    optimizer.zero_grad()
                    error.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total, num = total + float(error.detach()) * len(user_B), num + len(user_B)
                losses.append(total / num)
                if not np.isfinite(losses[-1]):
                    raise TrainingError(
                        "the error of a DropoutNet", value=losses[-1], mend="lower the learning rate"
                    )
        return losses

    def _error(self, towers: Towers, user_B: Int64, item_N: Int64, draws: np.random.Generator) -> Tensor:
        users, few, items = self._users.at(user_B), self._few.at(user_B), self._items.at(item_N)
        target_BN = torch.from_numpy(users.vector_ND @ items.vector_ND.T)
        items = items.without_vectors(draws.random(len(item_N)) < self._dropout)
        luck_B, is_few_B = draws.random(len(user_B)), draws.random(len(user_B)) < 0.5
        mixed = Known(
            np.where(is_few_B[:, None], few.vector_ND, users.vector_ND),
            np.where(is_few_B[:, None], few.content_NC, users.content_NC),
        )
        mixed = mixed.without_vectors(luck_B < self._dropout).without_content(luck_B < self._dropout / 2)
        user_BD, item_ND = (
            tower(torch.from_numpy(one.vector_ND), torch.from_numpy(one.content_NC))
            for tower, one in ((towers.users, mixed), (towers.items, items))
        )
        error: Tensor = (user_BD @ item_ND.T - target_BN).square().mean()
        return error

    def _draw_items(self, user_B: Int64, config: DropoutFitConfig, draws: np.random.Generator) -> Int64:
        """Half of what these users took, by chance, and half of all items that anybody took; each once."""
        half = config.batch_items // 2
        whose = draws.integers(len(user_B), size=half)
        low, high = self._offsets[user_B[whose]], self._offsets[user_B[whose] + 1]
        at_N = draws.integers(low, high)
        any_N = self._learned_I[draws.integers(len(self._learned_I), size=half)]
        drawn_N = np.unique(np.concatenate([self._log.item_N[at_N].astype(np.int64), any_N]))
        left_N: Int64 = drawn_N[~self._held_I[drawn_N]]
        return left_N

    def _mean_square(self) -> float:
        """Of the products of all users and items that were taken."""
        user_DD, item_DD = (
            one.vector_ND.T @ one.vector_ND / len(one.vector_ND)
            for one in (self._users.at(self._learned_U), self._items.at(self._learned_I))
        )
        return max(float((user_DD * item_DD).sum()), 1e-12)
