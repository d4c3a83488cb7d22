"""Soft rules on the ranked list, each a stage of its own in `rerankers`; this file is their order.

First what moves an item by itself: fatigue, freshness, the long tail, people's boosts. Then what comes behind all others:
repeats, and what was shown as often as it may be. Then what looks at the list as a whole: its mix, its variety, shares of
exposure, spread and caps, the later ones with the last say. Then luck: shuffling and sampling, an explored item. Pins stand
above all. Each stage takes the order of the one before for the order of relevance.

The result is a permutation of the input, pinned items added: what a rule defers comes later. The first few of what the first
two steps leave stay, whatever the third says. Hard rules are `filtering`'s.

Shape letters: K candidates, N of them that are not deferred.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from tastemaker.stages.business_rules import Boost, Pin
from tastemaker.stages.exploring import Exploration
from tastemaker.stages.fatigue import fatigue
from tastemaker.stages.matching import ItemMatcher, holds
from tastemaker.stages.policy import policy_of
from tastemaker.stages.rerankers.boosts import freshness, long_tail
from tastemaker.stages.rerankers.calibrated import calibrated
from tastemaker.stages.rerankers.caps import category_cap, franchise_cap, spread
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.deferral import over_cap, repeats
from tastemaker.stages.rerankers.dpp import dpp
from tastemaker.stages.rerankers.exposure import exposure
from tastemaker.stages.rerankers.luck import Draw, drawn
from tastemaker.stages.rerankers.mmr import mmr
from tastemaker.stages.rerankers.pinning import pinned
from tastemaker.stages.rerankers.relevance import relevance
from tastemaker.stages.rerankers.seen import RerankingItems, Seen
from tastemaker.stages.signals import RowOf
from tastemaker.types import Bool, Candidates, Float32, Float64, Int32, Int64, Query

_POLICIES_KEPT: Final = 64
_OF_THE_LIST: Final[tuple[tuple[str, Callable[..., Int64]], ...]] = (
    ("calibrated", calibrated),
    ("mmr", mmr),
    ("dpp", dpp),
    ("exposure", exposure),
    ("spread", spread),
    ("franchise_cap", franchise_cap),
    ("category_cap", category_cap),
)
_BY_MATCH: Final = frozenset({"exposure"})
_IN_ORDER: Final = (
    "fatigue", "freshness", "long_tail", "rules", "frequency_cap", "dedupe", *(name for name, _ in _OF_THE_LIST),
    "shuffle", "sampling",
)  # fmt: skip
"""Fields of the config, as their rules apply; of `rules`, pins come last."""


class Reranking:
    """Reorders ranked candidates by the soft rules. Thread-safe.

    Args:
        items: Of the catalogue.
        config: Which rules apply, where a query's policy does not say otherwise.
        row_of: Finds the items that a user's record or a rule names; unset, records are not read.
        exploration: Shows items that little is known of; unset, nothing is explored.
    """

    def __init__(
        self,
        items: RerankingItems,
        config: RerankingConfig | None = None,
        row_of: RowOf | None = None,
        exploration: Exploration | None = None,
    ) -> None:
        self.items, self.config, self._row_of = items, config or RerankingConfig(), row_of
        self._exploration = exploration
        self._matcher = (
            None if items.traits is None else ItemMatcher(items.traits, row_of or (lambda _: None))
        )
        self._config_of = lru_cache(_POLICIES_KEPT)(self._under)

    def __call__(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """Each query's candidates (best first) in their new order. Scores stay with their items.

        `propensity` is the probability of each place's item given those before it, where luck has a part in it.
        """
        return [self._one(query, ranked) for query, ranked in zip(queries, candidates, strict=True)]

    def steps(self, query: Query, ranked: Candidates) -> Iterator[tuple[str, Candidates]]:
        """The list as each rule leaves it, by the rule's name, in the order of the rules; the last is the answer.

        For explanations: the rules up to and with each are applied anew, many times the work of an answer.
        """
        config = self._config_of(query.policy)
        so_far = config.model_copy(update=dict.fromkeys(_IN_ORDER) | {"rules": ()})
        for name in _IN_ORDER:
            if own := getattr(config, name):
                so_far = so_far.model_copy(update={name: own})
                yield name, self._with_only(so_far)._one(query, ranked)
        yield "exploration", self._one(query, ranked)

    def _with_only(self, config: RerankingConfig) -> "Reranking":
        other = copy(self)
        other._config_of, other._exploration = lru_cache(1)(lambda _: config), None
        return other

    def _under(self, policy: str) -> RerankingConfig:
        return policy_of(policy).reranking_over(self.config)

    def _one(self, query: Query, ranked: Candidates) -> Candidates:
        config = self._config_of(query.policy)
        slate = ranked if len(ranked) <= 1 else self._ordered(query, ranked, config)
        if self._exploration is not None:
            slate = self._exploration(query, slate)
        pins = [rule for rule in config.rules if isinstance(rule, Pin) and holds(rule.when, query)]
        return slate if self._matcher is None else pinned(query, slate, self._matcher, pins)

    def draws(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Draw]:
        """What luck has to choose from in each query's list; explored items and pins, which come later, are not in it."""
        found = []
        for query, ranked in zip(queries, candidates, strict=True):
            config = self._config_of(query.policy)
            free_N, _ = self._by_rules(query, ranked, config)
            found.append(_draw(query, ranked, free_N, config))
        return found

    def _ordered(self, query: Query, ranked: Candidates, config: RerankingConfig) -> Candidates:
        free_N, behind = self._by_rules(query, ranked, config)
        draw = _draw(query, ranked, free_N, config)
        propensity_K = None
        if draw.is_drawn:
            by_luck_N, chance_N = drawn(query, draw.score_N, draw.keep_top, draw.shuffle, draw.sampling)
            free_N = free_N[by_luck_N]
            propensity_K = np.pad(chance_N, (0, len(ranked) - len(chance_N)), constant_values=1.0)
        slate = ranked.take(np.concatenate([free_N, behind]))
        return slate if propensity_K is None else replace(slate, propensity=propensity_K.astype(np.float32))

    def _by_rules(self, query: Query, ranked: Candidates, config: RerankingConfig) -> tuple[Int64, Int64]:
        """Places of the candidates in the order that all rules but luck give (N,), and of those that come behind."""
        order_K, relevance_K = self._weighed(query, ranked, config)
        deferred_K = self._deferred(query, ranked.item_index[order_K], config)
        free_N = order_K if deferred_K is None else order_K[~deferred_K]
        seen = Seen(ranked.item_index[free_N], relevance_K[: len(free_N)], config.keep_top, query.k)
        free_N = free_N[self._composed(query, seen, config)]
        return free_N, order_K[:0] if deferred_K is None else order_K[deferred_K]

    def _weighed(self, query: Query, ranked: Candidates, config: RerankingConfig) -> tuple[Int64, Float32]:
        """The order (K,) by relevance with all that raises or lowers it, and that relevance by place (K,)."""
        relevance_K = relevance(ranked.score, config.head or len(ranked))
        changes = self._changes(query, ranked.item_index, config)
        if not changes:
            return np.arange(len(ranked)), relevance_K
        left_K: Float32 = (relevance_K + np.sum(changes, axis=0)).astype(np.float32)
        order_K = np.argsort(-left_K, kind="stable")
        return order_K, left_K[order_K]

    def _changes(self, query: Query, rows_K: Int32, config: RerankingConfig) -> list[Float64]:
        """What each rule adds to the relevance of each candidate (K,); rules that add nothing are left out."""
        changes = []
        if config.fatigue is not None and self._row_of is not None:
            cost_K = fatigue(query, rows_K, self._row_of, config.fatigue)
            changes += [] if cost_K is None else [-cost_K]
        if self._matcher is None:
            return changes
        traits = self._matcher.traits
        if config.freshness is not None:
            changes.append(freshness(traits, rows_K, query.now_ms, config.freshness))
        if config.long_tail is not None:
            changes.append(long_tail(traits, rows_K, config.long_tail))
        for rule in config.rules:
            if isinstance(rule, Boost) and holds(rule.when, query):
                about_K = self._matcher.among(rule.match, rows_K, query.now_ms)
                changes.append(rule.amount * about_K.astype(np.float64))
        return changes

    def _deferred(self, query: Query, rows_K: Int32, config: RerankingConfig) -> Bool | None:
        """Which candidates (K,) come behind all others; None where none does."""
        deferred_K: Bool = np.zeros(len(rows_K), bool)
        if config.frequency_cap is not None and self._row_of is not None:
            over_K = over_cap(query, rows_K, self._row_of, config.frequency_cap)
            if over_K is not None:
                deferred_K |= over_K
        if config.dedupe is not None:
            free = np.flatnonzero(~deferred_K)
            deferred_K[free] = repeats(self.items, rows_K[free], config.dedupe)
        return deferred_K if deferred_K.any() else None

    def _composed(self, query: Query, seen: Seen, config: RerankingConfig) -> Int64:
        """The order (N,) that the stages which look at the list give it, one after the other."""
        order_N = np.arange(len(seen))
        if len(seen) <= max(config.keep_top, 1):
            return order_N
        for name, stage in _OF_THE_LIST:
            own: Any = getattr(config, name)
            if own is None or (name == "mmr" and config.dpp is not None):
                continue
            known: Any = self._matcher if name in _BY_MATCH else self.items
            if known is not None:
                step_N = stage(query, seen, known, own)
                order_N, seen = order_N[step_N], seen.ordered(step_N)
        return order_N


def _draw(query: Query, ranked: Candidates, free_N: Int64, config: RerankingConfig) -> Draw:
    sampling = config.sampling if query.explore else None
    return Draw(ranked.item_index[free_N], ranked.score[free_N], config.keep_top, config.shuffle, sampling)
