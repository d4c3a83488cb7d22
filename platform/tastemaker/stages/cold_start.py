"""How much an item's content counts beside what others took with it: the more have taken it, the less.

Shape letters: K candidates, S sources, I catalogue.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, field_validator

from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Int32

Knots = tuple[tuple[float, float], ...]


class ColdStartConfig(Strict):
    """Shares of content by an item's number of interactions; the rest is that of collaborative sources."""

    content_share: Knots = Field(
        ((0, 1.0), (1, 0.8), (10, 0.8), (20, 0.5), (40, 0.5), (50, 0.2)),
        min_length=1,
        description="(interactions, share) in order; straight lines between them, flat beyond the last",
    )
    content: tuple[str, ...] = Field(("content",), description="sources that know an item by its content")
    collaborative: tuple[str, ...] = Field(
        ("two_tower", "ease", "knn", "als"), description="sources that know an item by who took it"
    )

    @field_validator("content_share")
    @classmethod
    def _falling(cls, knots: Knots) -> Knots:
        numbers, shares = np.array(knots).T
        if (np.diff(numbers) <= 0).any() or (np.diff(shares) > 0).any() or numbers[0] < 0:
            raise ValueError("interactions that rise from 0 on, and shares that do not")
        if shares.max() > 1 or shares.min() < 0:
            raise ValueError("shares from 0 to 1")
        return knots


class ColdStart:
    """Weights of sources by candidate.

    Args:
        config: Shares.
        source_names: In the order of the score columns.
        interactions_I: How many have taken each item, later items being taken by none; unset shares nothing.
    """

    def __init__(
        self, config: ColdStartConfig, source_names: Sequence[str], interactions_I: Float32 | None
    ) -> None:
        self.config, self._interactions_I = config, interactions_I
        self._content_S = np.array([name in config.content for name in source_names], bool)
        self._collaborative_S = np.array([name in config.collaborative for name in source_names], bool)

    def share(self, num_interactions_K: Float32) -> Float64:
        """Share (K,) of content for items of so many interactions.

        >>> ColdStart(ColdStartConfig(), (), None).share(np.array([0, 1, 10, 15, 30, 50], np.float32)).tolist()
        [1.0, 0.8, 0.8, 0.65, 0.5, 0.2]
        """
        numbers, shares = np.array(self.config.content_share).T
        share_K: Float64 = np.interp(num_interactions_K, numbers, shares)
        return share_K

    def weights(self, weight_S: Float32, rows_K: Int32) -> Float32:
        """Weights (K, S): those of content and of collaborative sources stand to each other as the item's shares say.

        What both weigh together lies between the weight of all content sources, for pure content, and that of all
        collaborative ones: the less content weighs, the lower new items come beside others. Sources of neither kind keep
        their weights, and so do all where only one kind weighs anything.
        """
        weight_KS = np.broadcast_to(weight_S, (len(rows_K), len(weight_S)))
        content = float(weight_S[self._content_S].sum())
        collaborative = float(weight_S[self._collaborative_S].sum())
        if self._interactions_I is None or not content or not collaborative:
            return weight_KS
        share_K = self.share(self._interactions_of(rows_K, self._interactions_I))[:, None]
        whole_K = share_K * content + (1 - share_K) * collaborative
        shared_KS = np.where(self._content_S, weight_KS * share_K * whole_K / content, weight_KS)
        other_KS = weight_KS * (1 - share_K) * whole_K / collaborative
        return np.where(self._collaborative_S, other_KS, shared_KS).astype(np.float32)

    @staticmethod
    def _interactions_of(rows_K: Int32, interactions_I: Float32) -> Float32:
        known_K = rows_K < len(interactions_I)
        found_K: Float32 = np.where(known_K, interactions_I[np.where(known_K, rows_K, 0)], 0)
        return found_K
