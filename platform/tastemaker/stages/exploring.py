"""Showing items that little is known of: some requests get one of them in a slot that is not among the first.

Serving alone explores, where a query says so; its luck is a function of the query's seed, so that the log can tell it
again, and of how often the put items had been shown and clicked by then, which the log does not keep: a replay may show another
of them. Offline evaluation asks for no luck and gets none.

Shape letters: B requests, K candidates, I catalogue, P pool.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from tastemaker.features.well_known import Tried
from tastemaker.stages.overlay import FRESH
from tastemaker.stages.source import Asked, Source, best_allowed, filled
from tastemaker.strict import Strict
from tastemaker.types import Bool, Candidates, Float32, Float64, Int32, Query

_UNTRIED = Tried(0.0, 0.0)
_DRAW, _CHOICE = 0, 1
"""What a seed is drawn for."""


class ExplorationConfig(Strict):
    """How much traffic goes to items that few have seen."""

    share: float = Field(0.05, ge=0, le=1, description="of requests that get one such item")
    first_slot: int = Field(3, ge=0, description="slot, from 0, before which none is shown")
    num_proposed: int = Field(
        3, ge=1, le=1000, description="items that a request draws from the pool; one is shown"
    )
    pool: int = Field(500, ge=1, description="most items that are drawn from, newest first")
    max_interactions: int = Field(
        10, ge=0, description="of an item of the bundle; who has more is known already"
    )
    prior: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1.0, 9.0),
        description="of an item's click rate, as if so often clicked and so often not; 1 and 9 expect a tenth",
    )


def explores(query: Query, config: ExplorationConfig) -> bool:
    """Whether a query gets an item of the pool: where it lets that happen, for a stated share of seeds."""
    return query.explore and bool(np.random.default_rng([query.seed, _DRAW]).random() < config.share)


def bundle_pool(counts_I: Float32, created_ms_I: np.ndarray, config: ExplorationConfig) -> Int32:
    """Rows (P,) of a bundle's items that few have taken: newest first, then those that fewest took.

    Args:
        counts_I: Interactions.
        created_ms_I: When each came to be, NaN where that is unknown; such items come last.
        config: How many, and who is known.
    """
    rows = np.flatnonzero(counts_I <= config.max_interactions)
    age = -np.nan_to_num(created_ms_I[rows], nan=-np.inf)
    order = np.lexsort((rows, counts_I[rows], age))
    return rows[order][: config.pool].astype(np.int32)


def explored_chance(share: float, num: int) -> Float64:
    """The probability (num,) that a slot has the explored item, given that none before has.

    >>> explored_chance(0.5, 2).round(3).tolist()  # 1/4, then 1/4 of 3/4
    [0.25, 0.333]
    """
    each = share / num
    chance_S: Float64 = each / (1.0 - each * np.arange(num, dtype=np.float64))
    return chance_S


def unexplored_chance(config: ExplorationConfig, num: int) -> Float64:
    """The factor (num,) of each slot's propensity in a list that might have explored and did not, see `Exploration`."""
    factor_S = np.ones(num)
    if config.share and config.first_slot < num:
        factor_S[config.first_slot :] -= explored_chance(config.share, num - config.first_slot)
    return factor_S


class FreshSource(Source):
    """Items of the pool, some drawn for each exploring query: of those that were put since the bundle, else of its own.

    Thompson sampling of several items at once [Komiyama, Honda & Nakagawa 2015]: each item's click rate is drawn from Beta(prior +
    clicks, prior + impressions without), and the highest are proposed. So what nobody has seen is proposed most, what was shown in vain less
    and less, and what people click goes on. Of the bundle's own items no counts are read: they are drawn evenly.

    Args:
        num_bundle: Items of the bundle; later ones were put.
        num_items: Rows in all.
        pool: Of the bundle's own items.
        config: How much is explored.
        tried: Rows of put items, with how often each was shown and clicked; those that are well known are left out.
    """

    name = FRESH
    needs_history = False
    is_light = True

    def __init__(
        self,
        num_bundle: int,
        num_items: int,
        pool: Int32,
        config: ExplorationConfig,
        tried: Callable[[], Mapping[int, Tried]] = dict,
    ) -> None:
        self._put = np.arange(max(num_bundle, num_items - config.pool), num_items, dtype=np.int32)
        self._pool, self._config = pool, config
        self._tried = tried

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        return _AskedFresh([self._drawn(query) for query in queries])

    def _drawn(self, query: Query) -> Int32:
        if not explores(query, self._config):
            return np.empty(0, np.int32)
        luck = np.random.default_rng([query.seed, _CHOICE])
        drawn = np.empty(0, np.int32)
        tried = self._tried()
        known = [row for row, one in tried.items() if one.is_well_known]
        for rows in (np.setdiff1d(self._put, known), self._pool):
            rate_P = self._rates(rows, tried, luck)
            drawn, _ = best_allowed(rows, rate_P, query, self._config.num_proposed)
            if len(drawn):
                break
        return drawn

    def _rates(self, rows: Int32, tried: Mapping[int, Tried], luck: np.random.Generator) -> Float32:
        """A click rate (P,) of each row, drawn from what is known of it."""
        clicked, not_clicked = self._config.prior
        of = [tried.get(row, _UNTRIED) for row in rows.tolist()]
        alpha_P = clicked + np.array([one.clicked for one in of], np.float64)
        beta_P = not_clicked + np.array([max(0.0, one.shown - one.clicked) for one in of], np.float64)
        rate_P: Float32 = luck.beta(alpha_P, beta_P).astype(np.float32)
        return rate_P


class _AskedFresh:
    def __init__(self, drawn: Sequence[Int32]) -> None:
        self._drawn = drawn

    def propose(self, k: int) -> tuple[Int32, Float32]:
        return filled([(rows[:k], np.zeros(min(len(rows), k), np.float32)) for rows in self._drawn], k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [np.full(len(rows), np.nan, np.float32) for rows in items]


@dataclass(frozen=True)
class Exploration:
    """Gives one slot of an exploring query's slate to an item of the pool."""

    bit: int
    config: ExplorationConfig

    def __call__(self, query: Query, slate: Candidates) -> Candidates:
        """The candidates (best first) with one of the drawn moved up into a slot; a permutation.

        Item and slot are drawn evenly. Nothing moves where the drawn are among the first k already, or the list is too
        short. `propensity` is the probability of each place's item given those before it and what was drawn from the pool,
        times what it was before; of a request that does not explore it supposes that there was something to show.
        """
        first, k = self.config.first_slot, min(query.k, len(slate))
        if not query.explore or not self.config.share or first >= k:
            return slate
        chance_S = explored_chance(self.config.share, k - first)
        if not explores(query, self.config):
            return self._by_chance(slate, first, 1.0 - chance_S)
        at = np.flatnonzero(self.is_fresh(slate))
        at = at[at >= k]
        if not len(at):
            return self._by_chance(slate, first, np.ones(0))
        luck = np.random.default_rng([query.seed, _CHOICE])
        chosen, slot = int(luck.choice(at)), int(luck.integers(first, k))
        order = np.concatenate(
            [np.arange(slot), [chosen], np.delete(np.arange(slot, len(slate)), chosen - slot)]
        )
        moved = self._by_chance(slate.take(order), first, 1.0 - chance_S[: slot - first])
        assert moved.propensity is not None, "exploring gives propensities"
        moved.propensity[slot] = chance_S[slot - first] / len(at)
        return moved

    def _by_chance(self, slate: Candidates, first: int, factor_S: Float64) -> Candidates:
        usual = np.ones(len(slate), np.float32) if slate.propensity is None else slate.propensity
        propensity_K = usual.copy()
        propensity_K[first : first + len(factor_S)] *= factor_S.astype(np.float32)
        return replace(slate, propensity=propensity_K)

    def is_fresh(self, slate: Candidates) -> Bool:
        """Which candidates (K,) were drawn from the pool."""
        fresh_K: Bool = (slate.source_mask >> np.uint32(self.bit) & np.uint32(1)).astype(bool)
        return fresh_K
