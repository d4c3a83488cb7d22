"""Losses of models of sequences: what comes next against all items, or against a few that are drawn.

Shape letters: V tokens, N negatives, B sequences, G sequences of a group, L their length, I items, D dimension.
"""

import math
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from tastemaker.models.sequence.token_batch import TokenBatch
from tastemaker.strict import Strict

_LOGITS_AT_ONCE = 2**18
"""So many float32 lie in the second cache of a core."""
_LEAST_SHARE = 1e-30


class LossConfig(Strict):
    """What the next item is set against.

    `bce` with one negative is SASRec's own loss; with many and a calibration it is gSASRec's; `softmax` without
    `num_negatives` is cross-entropy over the whole catalogue.
    """

    kind: Literal["bce", "softmax"] = Field("softmax", description="each item by itself, or one among all")
    num_negatives: int | None = Field(
        None, ge=1, description="items drawn uniformly to stand against the next one; empty: all items"
    )
    calibration: float = Field(
        0.0, ge=0, le=1, description="how much bce makes up for drawing few negatives: gBCE's t"
    )
    shared: bool = Field(
        False, description="the tokens of a sequence share their negatives: a product instead of look-ups"
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.kind == "bce" and self.num_negatives is None:
            raise ValueError("num_negatives, which kind: bce draws")
        if self.kind == "softmax" and (self.calibration or self.shared):
            raise ValueError(
                "calibration and shared with kind: bce alone; a softmax's batch shares its draws"
            )
        return self

    def beta(self, num_items: int) -> float:
        """The exponent of the positive's probability in gBCE [Petrov & Macdonald 2023, Eq. 24].

        With sampling rate a = N / (I - 1) it is a (t (1 - 1/a) + 1/a).

        >>> LossConfig(kind="bce", num_negatives=10, calibration=0.5).beta(101)
        0.55
        """
        assert self.num_negatives is not None
        rate = min(1.0, self.num_negatives / max(1, num_items - 1))
        return rate * (self.calibration * (1 - 1 / rate) + 1 / rate)


def own_negatives_bce(hidden_VD: Tensor, next_VD: Tensor, negative_VND: Tensor, beta: float) -> Tensor:
    """Binary cross-entropy of each token's next item, and of negatives of its own [Kang & McAuley 2018, Eq. 8].

    -beta log s(<h, next> - log N) - sum over N negatives of log(1 - s(<h, negative> - log N)) with s the logistic function, mean
    over tokens. The offset, none where N is 1, is a departure from gBCE that moves no rank: without it all products must first
    become small alike, to which items get a direction in common that hides what they differ in.
    """
    offset = math.log(negative_VND.shape[1])
    positive_V = (hidden_VD * next_VD).sum(dim=1) - offset
    if negative_VND.shape[1] == 1:  # as a product of matrices it takes a CPU several times as long
        negative_VN = (hidden_VD * negative_VND[:, 0]).sum(dim=1)
    else:
        negative_VN = torch.einsum("vd,vnd->vn", hidden_VD, negative_VND) - offset
    return _bce(positive_V, functional.softplus(negative_VN).sum(), beta)


def shared_negatives_bce(
    hidden_VD: Tensor, next_VD: Tensor, negative_BND: Tensor, batch: TokenBatch, beta: float
) -> Tensor:
    """The same where the tokens of a sequence have the same negatives.

    Its mean over draws is that of `own_negatives_bce`.
    """
    offset = math.log(negative_BND.shape[1])
    positive_V = (hidden_VD * next_VD).sum(dim=1) - offset
    total = hidden_VD.new_zeros(())
    negatives = torch.split(negative_BND, [group.num for group in batch.groups])
    for hidden_GLD, negative_GND in zip(batch.grouped(hidden_VD), negatives, strict=True):
        total = total + functional.softplus(hidden_GLD @ negative_GND.transpose(1, 2) - offset).sum()
    return _bce(positive_V, total, beta)


def _bce(positive_V: Tensor, negatives: Tensor, beta: float) -> Tensor:
    return (beta * functional.softplus(-positive_V).sum() + negatives) / len(positive_V)


def sampled_cross_entropy(
    hidden_VD: Tensor,
    next_VD: Tensor,
    next_V: Tensor,
    negative_ND: Tensor,
    negative_N: Tensor,
    num_items: int,
) -> Tensor:
    """Cross-entropy against negatives that all tokens share, as an estimate of that over the whole catalogue.

    N drawn uniformly stand for the I - 1 others, so that each counts (I - 1) / N times; a token's next item among them
    does not stand against itself.
    """
    positive_V = (hidden_VD * next_VD).sum(dim=1)
    correction = math.log(max(1, num_items - 1) / len(negative_N))
    negative_VN = hidden_VD @ negative_ND.T + correction
    negative_VN = negative_VN.masked_fill(negative_N[None, :] == next_V[:, None], -torch.inf)
    total_V = torch.logaddexp(positive_V, negative_VN.logsumexp(dim=1))
    return (total_V - positive_V).mean()


def linear_cross_entropy(hidden_VD: Tensor, table_ID: Tensor, next_V: Tensor) -> Tensor:
    """Cross-entropy of <h, item> over all items, mean over tokens, without ever holding all logits.

    The gradient is worked out with the value, some tokens at a time while their logits are in the processor's cache: the
    same arithmetic as logits and torch's cross-entropy, in less than half the time. Where the hidden states are bfloat16
    products and shares are, and sums are float32.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden_VD, table_ID, next_V)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_VD: Tensor, table_ID: Tensor, next_V: Tensor) -> Tensor:
        table = table_ID.to(hidden_VD.dtype)
        grad_hidden_VD = torch.empty_like(hidden_VD)
        grad_table_ID = torch.zeros_like(table_ID)
        total = torch.zeros((), dtype=torch.float64, device=hidden_VD.device)
        rows = max(16, _LOGITS_AT_ONCE // len(table_ID))
        for begin in range(0, len(hidden_VD), rows):
            some = slice(begin, begin + rows)
            hidden, following = hidden_VD[some], next_V[some, None]
            logit = hidden @ table.T
            share = torch.softmax(logit, dim=1).to(hidden.dtype)
            total += _surprise(share, logit, following)
            share.scatter_add_(1, following, share.new_full(following.shape, -1.0))
            torch.mm(share, table, out=grad_hidden_VD[some])
            grad_table_ID += share.T @ hidden
        ctx.save_for_backward(grad_hidden_VD, grad_table_ID)
        ctx.num_tokens = len(hidden_VD)
        return (total / len(hidden_VD)).float()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden_VD, grad_table_ID = ctx.saved_tensors
        scale = float(grad[0]) / ctx.num_tokens
        return grad_hidden_VD * scale, grad_table_ID * scale, None


def _surprise(share: Tensor, logit: Tensor, following: Tensor) -> Tensor:
    """Sum of -log of the next items' shares."""
    found = share.gather(1, following).float()
    surprise = -found.log()
    if bool((found < _LEAST_SHARE).any()):  # nothing is left of them in float32
        wide = logit.float()
        surprise = wide.logsumexp(dim=1, keepdim=True) - wide.gather(1, following)
    return surprise.sum(dtype=torch.float64)
