"""Which soft and business rules apply: the config of `stages.reranking`, as bundles and policies spell it."""

from pydantic import Field

from tastemaker.stages.business_rules import Rule
from tastemaker.stages.fatigue import FatigueConfig
from tastemaker.stages.rerankers.boosts import FreshnessConfig, LongTailConfig
from tastemaker.stages.rerankers.calibrated import CalibratedConfig
from tastemaker.stages.rerankers.caps import CategoryCapConfig, FranchiseCapConfig, SpreadConfig
from tastemaker.stages.rerankers.deferral import DedupeConfig, FrequencyCapConfig
from tastemaker.stages.rerankers.dpp import DppConfig
from tastemaker.stages.rerankers.exposure import ExposureConfig
from tastemaker.stages.rerankers.luck import SamplingConfig, ShuffleConfig
from tastemaker.stages.rerankers.mmr import MmrConfig
from tastemaker.strict import Strict


class RerankingConfig(Strict):
    """The stages in the order in which they work; null switches one off."""

    keep_top: int = Field(
        3, ge=0, description="first candidates that stay, whatever variety, mix and caps say"
    )
    fatigue: FatigueConfig | None = Field(
        default_factory=FatigueConfig, description="what was shown often sinks; null switches it off"
    )
    freshness: FreshnessConfig | None = Field(None, description="what is new rises")
    long_tail: LongTailConfig | None = Field(None, description="what few took rises")
    dedupe: DedupeConfig | None = Field(None, description="what says the same as one before comes behind all")
    frequency_cap: FrequencyCapConfig | None = Field(
        None, description="what was shown as often as it may be comes behind all"
    )
    calibrated: CalibratedConfig | None = Field(None, description="the mix of the user's history")
    mmr: MmrConfig | None = Field(default_factory=MmrConfig, description="variety; null switches it off")
    dpp: DppConfig | None = Field(None, description="variety by volume, in place of `mmr`")
    exposure: ExposureConfig | None = Field(None, description="least and greatest shares of groups of items")
    spread: SpreadConfig | None = Field(None, description="items of one category stand apart")
    franchise_cap: FranchiseCapConfig | None = Field(None, description="cap per franchise")
    category_cap: CategoryCapConfig | None = Field(
        default_factory=CategoryCapConfig, description="cap per category; null switches it off"
    )
    shuffle: ShuffleConfig | None = Field(None, description="neighbours below the top change places")
    sampling: SamplingConfig | None = Field(None, description="a share of live requests is sampled")
    rules: tuple[Rule, ...] = Field((), description="block, filter, boost and pin, see `business_rules`")

    @property
    def head(self) -> int | None:
        """Best-ranked candidates over which relevance goes from 1 to 0; None for all."""
        variety = self.dpp or self.mmr
        return None if variety is None else variety.head
