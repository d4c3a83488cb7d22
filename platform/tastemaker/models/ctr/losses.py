"""What a click model's network is fitted by: cross-entropy, corrected where rows have propensities.

Shape letters: N rows.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tastemaker.models.ctr.model import Labelled
from tastemaker.models.propensity_losses import LEAST, ips_loss, relevance_loss
from tastemaker.strict import Strict
from tastemaker.types import Float32


class PropensityConfig(Strict):
    """What propensities correct, where rows have them."""

    of: Literal["clicks", "rows"] = Field(
        "clicks",
        description="clicks: what was not looked at counts as a no, and a click stands for 1 / propensity [Saito et al. 2020]; rows: what was not looked at is missing, and every row stands for as many [Schnabel et al. 2016]",
    )
    least: float = Field(LEAST, gt=0, le=1, description="propensities below this count as this")
    non_negative: bool = Field(
        False,
        description="of clicks: no click counts as less than nothing in not being relevant, which is steadier and biased",
    )


@dataclass(frozen=True)
class ClickLoss:
    """Mean loss of rows.

    Weights of rows are divided by their mean over all that is learned from, so that they say how rows compare and not how fast the fit
    goes: the self-normalised estimator, whose minimum is that of the plain one.
    """

    config: PropensityConfig
    mean_weight: float = 1.0

    @classmethod
    def of(cls, labelled: Labelled, config: PropensityConfig) -> Self:
        """The loss on such rows."""
        if labelled.propensity_N is None or not len(labelled):
            return cls(config)
        return cls(
            config, float((1.0 / np.maximum(labelled.propensity_N, config.least)).mean(dtype=np.float64))
        )

    def __call__(self, logit_N: Tensor, labelled: Labelled) -> Tensor:
        """Mean over the N rows, or some of them."""
        label_N = torch.from_numpy(labelled.label_N)
        if labelled.propensity_N is None:
            return functional.binary_cross_entropy_with_logits(logit_N, label_N)
        propensity_N, least = torch.from_numpy(labelled.propensity_N), self.config.least
        if self.config.of == "clicks":
            return relevance_loss(
                logit_N, label_N, propensity_N, least, non_negative=self.config.non_negative
            )
        loss_N = functional.binary_cross_entropy_with_logits(logit_N, label_N, reduction="none")
        return ips_loss(loss_N, propensity_N, len(labelled) * self.mean_weight, least)


def worth(score_N: Float32, validation: Labelled, config: PropensityConfig) -> float:
    """How good scores are on validation rows, the larger the better: the area under the curve, or less the loss of the fit."""
    from sklearn.metrics import roc_auc_score

    if validation.propensity_N is None:
        return float(roc_auc_score(validation.label_N, score_N))
    return -float(ClickLoss.of(validation, config)(torch.from_numpy(score_N), validation))
