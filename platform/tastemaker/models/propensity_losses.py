"""Losses of what would have been seen, had everything been: inverse-propensity weighted, with given propensities.

Pure functions for any model. Within requests, `ranking_losses.listwise_loss` takes weighted labels for the same. Where propensities
come from, and what they do to metrics, is `evaluation.counterfactual`'s.

Shape letters: N pairs of user and item.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

LEAST: Final = 0.01
"""Propensities below this count as this [Saito et al. 2020, clipped estimator]."""


def ips_loss(loss_N: Tensor, propensity_N: Tensor, num_pairs: float, least: float = LEAST) -> Tensor:
    """Mean loss over all pairs, from those that were seen: sum of loss / propensity, over the pairs [Schnabel et al. 2016].

    >>> ips_loss(torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.25]), num_pairs=6).item()  # (2 + 16) / 6
    3.0

    Args:
        loss_N: Of the seen pairs.
        propensity_N: Probability with which each was seen, in (0, 1].
        num_pairs: Of the batch, seen or not; or how many there are on average, given those seen.
        least: See `LEAST`.
    """
    return (loss_N / propensity_N.clamp_min(least)).sum() / num_pairs


def snips_loss(loss_N: Tensor, propensity_N: Tensor, least: float = LEAST) -> Tensor:
    """The same over the sum of weights: less noise from batch to batch, and no number of pairs is needed; 0 of nothing.

    >>> snips_loss(torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.25])).item()  # (2 + 16) / (2 + 4)
    3.0
    """
    weight_N = torch.reciprocal(propensity_N.clamp_min(least))
    return (weight_N * loss_N).sum() / weight_N.sum().clamp_min(1e-9)


def relevance_loss(
    logit_N: Tensor,
    click_N: Tensor,
    propensity_N: Tensor,
    least: float = LEAST,
    *,
    non_negative: bool = False,
) -> Tensor:
    """Binary cross-entropy of relevance, from clicks that need a look as well [Saito et al. 2020].

    A click counts 1 / propensity as relevant and 1 - 1 / propensity as not, which on average is the loss that relevance itself would
    have; what was not clicked counts as not relevant. The second part is negative where propensities are below 1: a model that can
    learn every pair by heart drives it without bound, and `non_negative` leaves it out of clicks, with some bias.

    By hand: logit 0, of which either part costs ln 2: (1 / .5) ln 2 + (1 - 1 / .5) ln 2 = ln 2.

    >>> one = torch.ones(1)
    >>> round(relevance_loss(0 * one, one, 0.5 * one).item(), 4)
    0.6931

    Args:
        logit_N: Of relevance.
        click_N: 1 where a pair was clicked, else 0.
        propensity_N: Probability with which each was looked at, in (0, 1].
        least: See `LEAST`.
        non_negative: No pair weighs less than 0.

    Returns:
        The mean over the N pairs.
    """
    relevant_N = click_N / propensity_N.clamp_min(least)
    not_relevant_N = 1.0 - relevant_N
    if non_negative:
        not_relevant_N = not_relevant_N.clamp_min(0.0)
    found: Tensor = (
        relevant_N * functional.softplus(-logit_N) + not_relevant_N * functional.softplus(logit_N)
    ).mean()
    return found
