"""What a bundle says of its stages, and which of them a process runs."""

from typing import Literal

from pydantic import Field

from tastemaker.stages.exploring import ExplorationConfig
from tastemaker.stages.hydration import HydrationConfig
from tastemaker.stages.ranking import RankingConfig
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.retrieval import RetrievalConfig
from tastemaker.strict import Strict

Part = Literal["retrieve", "rank", "rerank"]
ALL_PARTS: frozenset[Part] = frozenset({"retrieve", "rank", "rerank"})


class PipelineConfig(Strict):
    """All stages' configs, as a bundle keeps them."""

    retrieval: RetrievalConfig = Field(description="which sources propose how many candidates")
    hydration: HydrationConfig = Field(default_factory=HydrationConfig, description="what features see")
    ranking: RankingConfig = Field(default_factory=RankingConfig, description="what the ranker's tables see")
    ranker: bool = Field(
        True, description="whether there is a ranker; without one candidates keep the order of retrieval"
    )
    reranking: RerankingConfig = Field(default_factory=RerankingConfig, description="soft rules")
    exploration: ExplorationConfig = Field(
        default_factory=ExplorationConfig, description="traffic of items that few have seen, in serving alone"
    )
