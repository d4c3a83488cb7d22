"""Losses of the ranker: of its clicks within requests or one by one, and of its further targets.

Shape letters: B candidates of all requests of a batch, T targets, G requests (groups).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tastemaker.features.ranking_data import CLICK, Target

LossKind = Literal["listwise", "pointwise"]


@dataclass(frozen=True)
class RankingLoss:
    """Weighted sum of the targets' losses over a batch of whole requests.

    A click's is `click_loss`, that of likes and purchases is binary cross-entropy, that of watch times the squared error
    of log(1 + seconds); where a label is NaN it counts nothing. Where negatives were sampled, those that were kept stand
    for all of them in the losses of likes and purchases: they weigh 1 / `negative_share`.

    Args:
        targets: What the columns of logits and labels are of.
        kind: Loss of the clicks.
        weights: Of the targets' losses; 1 where unset.
        negative_share: Probability with which a candidate without a click is in the batch.
    """

    targets: Sequence[Target]
    kind: LossKind
    weights: Mapping[Target, float] = field(default_factory=dict)
    negative_share: float = 1.0

    def __call__(
        self, logit_BT: Tensor, label_BT: Tensor, offsets: Tensor, weight_B: Tensor | None = None
    ) -> Tensor:
        """The loss.

        Args:
            logit_BT: From the model.
            label_BT: See `RankingData`.
            offsets: Where each request begins in the batch and, last, where padding begins; int64 (G + 1,).
            weight_B: How much each click counts in the listwise loss; unset, all count alike.
        """
        end = int(offsets[-1])
        logit_BT, label_BT = logit_BT[:end].float(), label_BT[:end]
        click_B = label_BT[:, self.targets.index(CLICK)]
        sampled_B = torch.where(click_B > 0, 1.0, 1.0 / self.negative_share)
        total = logit_BT.new_zeros(())
        for column, target in enumerate(self.targets):
            logit_B, label_B = logit_BT[:, column], label_BT[:, column].nan_to_num()
            known_B = ~label_BT[:, column].isnan()
            if target == CLICK:
                counted_B = label_B if weight_B is None else label_B * weight_B[:end]
                loss = click_loss(logit_B, counted_B, offsets, self.kind, self.negative_share)
            elif target == "watch":
                loss = _mean((logit_B - torch.log1p(label_B)) ** 2, known_B.float())
            else:
                loss = _mean(_cross_entropy(logit_B, label_B), known_B * sampled_B)
            total = total + self.weights.get(target, 1.0) * loss
        return total


def click_loss(
    logit_B: Tensor, label_B: Tensor, offsets: Tensor, kind: LossKind, negative_share: float = 1.0
) -> Tensor:
    """Mean loss of clicks over a batch of whole requests, without padding.

    `listwise`: `listwise_loss`. `pointwise`: binary cross-entropy, each candidate counting alike. Where only a share w of
    the negatives is there, the odds of a click among the candidates that are there are 1 / w times the true odds, so the
    loss is that of `logit - log(w)`, and the logit itself is of the true odds: the correction p = q / (q + (1 - q) / w) of
    [He et al. 2014, Sec. 6.3], made while training. A softmax within requests does not see what they have in common, so
    the listwise loss needs none.
    """
    if kind == "listwise":
        return listwise_loss(logit_B, label_B, offsets)
    return _cross_entropy(logit_B - log(negative_share), label_B).mean()


def listwise_loss(logit_B: Tensor, label_B: Tensor, offsets: Tensor) -> Tensor:
    """Softmax cross-entropy within each request [Cao et al. 2007, ListNet top-one], mean over all positives.

    Labels may be weights of positives, such as 1 / P(looked at) [Ai et al. 2018, inverse propensity weighted softmax]: the mean is then
    a weighted one.

    -1/n sum over positives i of log(exp(s_i) / sum_{j in i's request} exp(s_j)). Every positive counts alike, so a
    request with more of them counts more. Requests without a positive count nothing; without any at all the loss is 0.

    >>> scores, labels = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> round(listwise_loss(scores, labels, torch.tensor([0, 2, 4])).item(), 4)  # ln 2
    0.6931
    """
    num_groups = len(offsets) - 1
    group_B = torch.repeat_interleave(torch.arange(num_groups, device=logit_B.device), torch.diff(offsets))
    largest_G = torch.full((num_groups,), -torch.inf, device=logit_B.device)
    largest_G = largest_G.scatter_reduce(0, group_B, logit_B.detach(), "amax")
    shifted_B = logit_B - largest_G[group_B]
    total_G = torch.zeros(num_groups, device=logit_B.device).index_add(0, group_B, shifted_B.exp())
    log_share_B = shifted_B - total_G.log()[group_B]
    total = label_B.sum()
    return -(label_B * log_share_B).sum() / torch.where(total > 0, total, 1.0)


def _cross_entropy(logit_B: Tensor, label_B: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")


def _mean(loss_B: Tensor, weight_B: Tensor) -> Tensor:
    """Weighted mean; 0 where nothing weighs."""
    return (weight_B * loss_B).sum() / weight_B.sum().clamp_min(1e-9)
