"""The way of one request: retrieve, hydrate and rank, rerank, filter.

Serving and offline evaluation run this same object. A graph that spreads the stages over processes calls one method in
each; `finish` stands behind every answer, whichever stages ran.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pydantic import Field

from tastemaker.config import Strict
from tastemaker.errors import ServingError
from tastemaker.stages.filtering import hard_filter
from tastemaker.stages.hydration import Hydration, HydrationConfig
from tastemaker.stages.ranking import Ranking, RankingConfig
from tastemaker.stages.reranking import Reranking, RerankingConfig
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.types import Candidates, Query

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle

Part = Literal["retrieve", "rank", "rerank"]
ALL_PARTS: frozenset[Part] = frozenset({"retrieve", "rank", "rerank"})
T = TypeVar("T")


class PipelineConfig(Strict):
    """All stages' configs, as a bundle keeps them."""

    retrieval: RetrievalConfig = Field(description="which sources propose how many candidates")
    hydration: HydrationConfig = Field(default_factory=HydrationConfig, description="what features see")
    ranking: RankingConfig = Field(default_factory=RankingConfig, description="what the ranker's tables see")
    reranking: RerankingConfig = Field(default_factory=RerankingConfig, description="soft rules")


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
    ) -> None:
        self.config = config
        self._retrieval, self._hydration, self._ranking, self._reranking = (
            retrieval,
            hydration,
            ranking,
            reranking,
        )

    @classmethod
    def from_bundle(cls, bundle: "Bundle", parts: frozenset[Part] = ALL_PARTS) -> Self:
        """The stages of a bundle that `parts` need; nothing else of it is read.

        Raises:
            BundleError: A file that they need is missing.
            CompatibilityError: The bundle's parts do not belong together.
        """
        from tastemaker.stages.loading import BundleParts

        loaded = BundleParts(bundle)
        return cls(
            loaded.config,
            retrieval=loaded.retrieval() if "retrieve" in parts else None,
            hydration=loaded.hydration() if "rank" in parts else None,
            ranking=loaded.ranking() if "rank" in parts else None,
            reranking=loaded.reranking() if "rerank" in parts else None,
        )

    @property
    def source_names(self) -> tuple[str, ...]:
        """Sources in the order of mask bits and score columns."""
        return tuple(source.name for source in self.config.retrieval.sources)

    def retrieve(self, queries: Sequence[Query]) -> list[Candidates]:
        """Candidates of each query, best merged score first."""
        return _loaded(self._retrieval, "retrieve")(queries)

    def rank(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates with features and probabilities, best first."""
        hydrated = _loaded(self._hydration, "rank")(queries, candidates)
        return _loaded(self._ranking, "rank")(queries, hydrated)

    def rerank(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates in the order that the soft rules give."""
        return _loaded(self._reranking, "rerank")(queries, candidates)

    def finish(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """What may be shown, cut to each query's k. Every answer passes here."""
        return [hard_filter(query, found) for query, found in zip(queries, candidates, strict=True)]

    def recommend(self, queries: Sequence[Query], until: Part = "rerank") -> list[Candidates]:
        """The answer to each query by the stages up to and with `until`."""
        candidates = self.retrieve(queries)
        if until != "retrieve":
            candidates = self.rank(queries, candidates)
        if until == "rerank":
            candidates = self.rerank(queries, candidates)
        return self.finish(queries, candidates)


def _loaded(stage: T | None, part: Part) -> T:
    if stage is None:
        raise ServingError(
            f"this process runs no stage of part {part}", mend=f"load the bundle with {part} in parts"
        )
    return stage
