"""The way of one request: retrieve, hydrate and rank, rerank, filter.

Serving and offline evaluation run this same object. A graph that spreads the stages over processes calls one method in
each; `finish` stands behind every answer, whichever stages ran.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tastemaker.errors import ServingError
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.trending import Trending
from tastemaker.models.contributions import Contributions
from tastemaker.stages.because import because
from tastemaker.stages.business_rules import HardRules
from tastemaker.stages.explain import (
    FORBIDDEN,
    Explanation,
    Reordered,
    SaysHere,
    SourceSays,
    among,
    explanation,
    joined,
    moves,
    rank_of,
    say_here,
)
from tastemaker.stages.filtering import hard_filter, permitted
from tastemaker.stages.hydration import Hydration
from tastemaker.stages.loading import BundleParts
from tastemaker.stages.merging import ShardAnswer
from tastemaker.stages.overlay import Overlay
from tastemaker.stages.pipeline_config import ALL_PARTS, Part, PipelineConfig
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.rerankers.luck import Draw
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.types import Candidates, Query

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle

T = TypeVar("T")


class Pipeline:
    """The stages of one bundle, or those of them that this process runs. Thread-safe."""

    def __init__(
        self,
        config: PipelineConfig,
        *,
        retrieval: Retrieval | None = None,
        hydration: Hydration | None = None,
        ranking: Ranking | None = None,
        reranking: Reranking | None = None,
        overlay: Overlay | None = None,
        hard_rules: HardRules | None = None,
    ) -> None:
        self.config, self.overlay, self._hard_rules = config, overlay, hard_rules
        self._retrieval, self._hydration, self._ranking, self._reranking = (
            retrieval,
            hydration,
            ranking,
            reranking,
        )

    @staticmethod
    def from_bundle(
        bundle: "Bundle",
        parts: frozenset[Part] = ALL_PARTS,
        store_of: Callable[[ItemFacts], ItemStore] = ItemStore,
        trending: Callable[[], Trending | None] | None = None,
    ) -> "Pipeline":
        """The stages of a bundle that `parts` need; nothing else of it is read. Its items stay as published, see `live`.

        Args:
            bundle: Opened.
            parts: What this process runs.
            store_of: Makes the store of what is known of the items now, where the ranker reads that. By default nothing
                is, but what the bundle says.
            trending: Gives what trends now, or None for what the bundle knows of it. Unset, the bundle alone says.

        Raises:
            BundleError: A file that they need is missing.
            CompatibilityError: The bundle's parts do not belong together.
        """
        return Pipeline.of_parts(BundleParts(bundle, trending), parts, store_of)

    @staticmethod
    def of_parts(
        made: BundleParts,
        parts: frozenset[Part],
        store_of: Callable[[ItemFacts], ItemStore] = ItemStore,
        overlay: Overlay | None = None,
        *,
        is_ruled: bool = False,
    ) -> "Pipeline":
        """The same of stages that may be shared with other pipelines; `overlay` is that of the items, where they are live.

        Queries that are not `is_ruled` have blocks and filters applied where all stages run.
        """
        ranks = "rank" in parts and made.config.ranker
        return Pipeline(
            made.config,
            retrieval=made.retrieval() if "retrieve" in parts else None,
            hydration=made.hydration(store_of) if ranks else None,
            ranking=made.ranking() if ranks else None,
            reranking=made.reranking() if "rerank" in parts else None,
            overlay=overlay,
            hard_rules=made.hard_rules() if parts >= ALL_PARTS and not is_ruled else None,
        )

    @property
    def source_names(self) -> tuple[str, ...]:
        """Sources in the order of mask bits and score columns."""
        return tuple(source.name for source in self.config.retrieval.sources)

    def retrieve(self, queries: Sequence[Query]) -> list[Candidates]:
        """Candidates of each query, best merged score first."""
        return _loaded(self._retrieval, "retrieve")(self._fit(queries))

    def shard_answers(self, queries: Sequence[Query]) -> list[ShardAnswer]:
        """What the sources of a shard say to each query."""
        return _loaded(self._retrieval, "retrieve").shard_answers(self._fit(queries))

    def rank(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates with features and probabilities, best first; as they are where the config has no ranker."""
        queries, candidates = self._fit(queries), self._known(candidates)
        if not self.config.ranker:
            return list(candidates)
        hydrated = _loaded(self._hydration, "rank")(queries, candidates)
        return _loaded(self._ranking, "rank")(queries, hydrated)

    def rerank(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates in the order that the soft rules give."""
        return _loaded(self._reranking, "rerank")(self._fit(queries), self._known(candidates))

    def finish(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """What may be shown, cut to each query's k. Every answer passes here."""
        found = zip(self._fit(queries), self._known(candidates), strict=True)
        return [hard_filter(query, mine) for query, mine in found]

    def recommend(self, queries: Sequence[Query], until: Part = "rerank") -> list[Candidates]:
        """The answer to each query by the stages up to and with `until`."""
        candidates = self.retrieve(queries)
        if until != "retrieve":
            candidates = self.rank(queries, candidates)
        if until == "rerank":
            candidates = self.rerank(queries, candidates)
        return self.finish(queries, candidates)

    def draws(self, queries: Sequence[Query]) -> list[Draw]:
        """What luck has to choose from in the answer to each query."""
        ranked = self._known(self.rank(queries, self.retrieve(queries)))
        return _loaded(self._reranking, "rerank").draws(self._fit(queries), ranked)

    def because(self, query: Query, slate: Candidates) -> Candidates:
        """A list that may be shown, with the items of the history that speak for its own."""
        return because(self._fit([query])[0], slate, _loaded(self._reranking, "rerank").items.vectors_ID)

    def permits(self, query: Query, row: int) -> bool:
        """Whether no hard rule keeps an item from a query."""
        (fitted,) = self._fit([query])
        return bool(permitted(fitted, np.array([row], np.int32))[0])

    def say(self, query: Query, row: int) -> tuple[SourceSays, ...]:
        """What each source says of an item, whether it proposes it or not."""
        return joined([self.say_here(query, row)])

    def say_here(self, query: Query, row: int) -> tuple[SaysHere, ...]:
        """The same of what is searched here, for `explain.joined`."""
        return say_here(_loaded(self._retrieval, "retrieve"), self._fit([query])[0], row)

    def reorder(self, query: Query, ranked: Candidates, row: int) -> Reordered:
        """What reranking and the final filter do to one of the ranked candidates."""
        (fitted,), (known,) = self._fit([query]), self._known([ranked])
        steps = list(_loaded(self._reranking, "rerank").steps(fitted, known))
        _, slate = steps[-1]
        shown = hard_filter(fitted, slate).item_index
        return Reordered(rank_of(row, slate.item_index), moves(steps, known, row), rank_of(row, shown))

    def contributions(self, query: Query, ranked: Candidates, row: int) -> Contributions:
        """What each feature adds to the ranker's score of one of the ranked candidates, which have their features."""
        (fitted,) = self._fit([query])
        return _loaded(self._ranking, "rank").contributions(fitted, ranked, row)

    def explain(
        self, query: Query, row: int, rules: Sequence[str] = (), names: Sequence[str] = ()
    ) -> Explanation:
        """What happens to an item where all stages here answer `query`.

        Args:
            query: As it would be answered.
            row: Of the item.
            rules: Names of hard rules that are known to forbid it.
            names: Of the ranker's features.
        """
        query = replace(query, keep_features=True)
        if not rules and not self.permits(query, row):
            rules = (FORBIDDEN,)
        says = self.say(query, row)
        retrieved = self.retrieve([query])[0]
        ranked = self.rank([query], [retrieved])[0]
        supposed = None
        if rank_of(row, retrieved.item_index) is None:
            supposed = self.rank([query], [among(retrieved, row, says)])[0]
        return explanation(
            row, rules=rules, says=says, retrieved=retrieved, ranked=ranked, supposed=supposed,
            reordered=self.reorder(query, ranked, row), feature_names=names,
            contributions=self.contributions(query, ranked if supposed is None else supposed, row),
        )  # fmt: skip

    def _fit(self, queries: Sequence[Query]) -> Sequence[Query]:
        """Whatever process made a query: it is in rows that there are here, and forbids what was deleted.

        Blocks and filters apply too where the pipeline has them: where a gateway asks, it has applied them.
        """
        if self._hard_rules is not None:
            queries = [self._hard_rules.applied(query) for query in queries]
        return queries if self.overlay is None else [self.overlay.fit(query) for query in queries]

    def _known(self, candidates: Sequence[Candidates]) -> Sequence[Candidates]:
        return candidates if self.overlay is None else [self.overlay.known(found) for found in candidates]


def _loaded(stage: T | None, part: Part) -> T:
    if stage is None:
        raise ServingError(
            f"this process runs no stage of part {part}", mend=f"load the bundle with {part} in parts"
        )
    return stage
