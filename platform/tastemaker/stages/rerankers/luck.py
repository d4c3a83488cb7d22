"""Lists that are drawn, by the luck of a request's seed, with the probability of each choice.

Two ways: neighbours below the top are shuffled, for all requests; a share of requests is sampled by Plackett-Luce over the
ranker's scores. What is shown is drawn from the mixture of both, and each place has its conditional propensity under it.

Shape letters: N candidates.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from tastemaker.stages.rerankers.relevance import log_odds
from tastemaker.stages.rerankers.seen import with_rest
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Float64, Int32, Int64, Query

_SHUFFLE, _SAMPLE = 2, 3
"""What a seed is drawn for; `exploring` has 0 and 1."""


class ShuffleConfig(Strict):
    """Neighbours below the top change places, so that what is near in relevance takes turns."""

    window: int = Field(5, ge=2, le=100, description="so many in a row are shuffled among themselves")
    head: int = Field(50, ge=2, le=500, description="first places that this is done to")


class SamplingConfig(Strict):
    """Requests whose list is sampled: what off-policy estimates of other rankings need [Plackett 1975, Luce 1959]."""

    share: float = Field(0.02, gt=0, le=1, description="of requests; of live ones alone")
    temperature: float = Field(1.0, gt=0, description="of the scores' log-odds; more is more even")


@dataclass(frozen=True, slots=True)
class Draw:
    """What a list is drawn from: candidates in the order of the stages, and how luck changes it; see `drawn`.

    `rows_N` are the items, `score_N` the ranker's scores; `keep_top` first places are not shuffled.
    """

    rows_N: Int32
    score_N: Float32
    keep_top: int
    shuffle: ShuffleConfig | None
    sampling: SamplingConfig | None

    @property
    def is_drawn(self) -> bool:
        """Whether luck has a part in the list."""
        return self.shuffle is not None or self.sampling is not None


def drawn(
    query: Query,
    score_N: Float32,
    keep_top: int,
    shuffle: ShuffleConfig | None,
    sampling: SamplingConfig | None,
) -> tuple[Int64, Float64]:
    """An order (N,) and the probability (N,) of each choice given those before it.

    Args:
        query: Whose seed decides.
        score_N: The ranker's, in the order that the stages gave.
        keep_top: First places that are not shuffled; a sampled list keeps none.
        shuffle: Unset, the order of the stages stays.
        sampling: Unset, no request is sampled.
    """
    num = len(score_N)
    order_N = np.arange(num)
    if shuffle is not None:
        order_N = _shuffled(num, keep_top, shuffle, query.seed)
    if sampling is None:
        return order_N, shuffle_propensity(order_N, keep_top, shuffle)
    logit_N = logits(score_N) / sampling.temperature
    luck = np.random.default_rng([query.seed, _SAMPLE])
    if luck.random() < sampling.share:
        order_N = np.argsort(-(logit_N + luck.gumbel(size=num)), kind="stable")
    usual_N = shuffle_propensity(order_N, keep_top, shuffle)
    return order_N, mixed(usual_N, plackett_luce(logit_N[order_N]), sampling.share)


def is_sampled(seed: int, share: float) -> bool:
    """Whether `drawn` samples the list of a request with that seed, where a share of them is."""
    return bool(np.random.default_rng([seed, _SAMPLE]).random() < share)


def logits(score_N: Float32) -> Float64:
    """Log-odds of probabilities; other scores as they are."""
    logit_N: Float64 = score_N.astype(np.float64)
    return log_odds(logit_N) if len(logit_N) and logit_N.min() >= 0 and logit_N.max() <= 1 else logit_N


def _shuffled(num: int, keep_top: int, config: ShuffleConfig, seed: int) -> Int64:
    luck = np.random.default_rng([seed, _SHUFFLE])
    head = min(num, max(config.head, keep_top))  # what lies behind stays
    window_M = windows(num, keep_top, config)[:head]
    return with_rest(np.lexsort((luck.random(head), window_M)), num)


def windows(num: int, keep_top: int, config: ShuffleConfig | None) -> Int64:
    """The window (N,) of each place; places that stay, without a config all, have one of their own."""
    place_N = np.arange(num)
    if config is None:
        return place_N
    window_N = keep_top + (place_N - keep_top) // config.window
    stays_N: Bool = (place_N < keep_top) | (place_N >= config.head)
    return np.where(stays_N, place_N + num * (place_N >= keep_top), window_N).astype(np.int64)


def shuffle_propensity(order_N: Int64, keep_top: int, config: ShuffleConfig | None) -> Float64:
    """The probability (N,) of each choice given those before it where windows are shuffled evenly; without, 1 or 0.

    >>> shuffle_propensity(np.array([0, 2, 1, 3]), 1, ShuffleConfig(window=2)).tolist()
    [1.0, 0.5, 1.0, 1.0]
    """
    num = len(order_N)
    if config is None:
        is_usual_N: Bool = order_N == np.arange(num)
        return is_usual_N.astype(np.float64)
    window_N = windows(num, keep_top, config)
    last_N = np.searchsorted(window_N, window_N, side="right")
    chance_N: Float64 = np.where(window_N[order_N] == window_N, 1.0 / (last_N - np.arange(num)), 0.0)
    return chance_N


def plackett_luce(logit_N: Float64) -> Float64:
    """The probability (N,) of each choice given those before it, of a list in the order of `logit_N`.

    exp(logit) over the sum of it for all that are left [Plackett 1975].

    >>> plackett_luce(np.log([2.0, 1.0, 1.0])).round(3).tolist()  # 2 of 4, 1 of 2, 1 of 1
    [0.5, 0.5, 1.0]
    """
    weight_N = np.exp(logit_N - logit_N.max(initial=-np.inf))
    left_N = weight_N[::-1].cumsum()[::-1]
    chance_N: Float64 = np.clip(weight_N / np.maximum(left_N, 1e-300), 1e-12, 1.0)
    return chance_N


def mixed(usual_N: Float64, sampled_N: Float64, share: float) -> Float64:
    """The probability (N,) of each choice given those before it, where a share of lists comes from the second way.

    The choices before say which way a list came: P(first n + 1) / P(first n), P of either way's product.

    >>> mixed(np.array([1.0, 0.0]), np.array([0.5, 0.5]), share=0.2).round(3).tolist()  # .8 + .1, then .05 of .9
    [0.9, 0.056]
    """
    with np.errstate(divide="ignore"):
        usual, sampled = (np.concatenate([[0.0], np.log(p_N).cumsum()]) for p_N in (usual_N, sampled_N))
        both = np.logaddexp(np.log1p(-share) + usual, np.log(share) + sampled)
    chance_N: Float64 = np.exp(np.diff(both))
    return chance_N
