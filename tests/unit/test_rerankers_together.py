"""What all reranking stages together promise, whatever is configured."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NOW_MS, event, state_of
from reranked import DAY_MS, NOTHING, catalogue, ranked, unit

from tastemaker.errors import CompatibilityError
from tastemaker.stages.business_rules import Pin
from tastemaker.stages.exploring import Exploration, ExplorationConfig
from tastemaker.stages.matching import Match
from tastemaker.stages.rerankers.boosts import FreshnessConfig, LongTailConfig
from tastemaker.stages.rerankers.calibrated import CalibratedConfig
from tastemaker.stages.rerankers.caps import CategoryCapConfig, FranchiseCapConfig, SpreadConfig
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.deferral import DedupeConfig, FrequencyCapConfig
from tastemaker.stages.rerankers.dpp import DppConfig
from tastemaker.stages.rerankers.exposure import ExposureConfig, Floor
from tastemaker.stages.rerankers.luck import SamplingConfig, ShuffleConfig
from tastemaker.stages.rerankers.mmr import MmrConfig
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Query

MAYBE = st.none()
CONFIGS = st.builds(
    RerankingConfig,
    keep_top=st.integers(0, 4),
    fatigue=MAYBE,
    long_tail=MAYBE | st.builds(LongTailConfig),
    freshness=MAYBE | st.builds(FreshnessConfig),
    dedupe=MAYBE | st.just(DedupeConfig(by=("title", "franchise"))),
    frequency_cap=MAYBE | st.just(FrequencyCapConfig(most=1)),
    calibrated=MAYBE | st.builds(CalibratedConfig, by=st.sampled_from(["category", "tags"])),
    mmr=MAYBE | st.builds(MmrConfig, head=st.integers(1, 25), places=st.integers(1, 25)),
    dpp=MAYBE | st.builds(DppConfig, head=st.integers(1, 25), places=st.integers(1, 25)),
    exposure=MAYBE | st.just(ExposureConfig(floors=(Floor(match=Match(max_interactions=3), share=0.3),))),
    spread=MAYBE | st.builds(SpreadConfig, apart=st.integers(1, 3)),
    franchise_cap=MAYBE | st.just(FranchiseCapConfig(max_per_franchise=1)),
    category_cap=MAYBE | st.just(CategoryCapConfig(max_per_category=2)),
    shuffle=MAYBE | st.builds(ShuffleConfig, window=st.integers(2, 6)),
    sampling=MAYBE | st.builds(SamplingConfig, share=st.floats(0.01, 1)),
)
WORLD = catalogue(
    *(
        {
            "title": f"t{i % 17}",
            "category": "abc"[i % 3],
            "tags": [f"g{i % 5}"],
            **({"franchise": f"f{i % 4}"} if i % 2 else {}),
            **({"created_at_ms": NOW_MS - i * DAY_MS} if i % 3 else {}),
        }
        for i in range(20)
    ),
    interactions=[float(i * 7 % 20) for i in range(20)],
)
STATE = state_of(event("u", "i3", "impression"), event("u", "i7", "impression"))


@settings(max_examples=300, deadline=None)
@given(
    config=CONFIGS,
    num=st.integers(0, 20),
    k=st.integers(1, 25),
    seed=st.integers(0, 2**60),
    live=st.booleans(),
)
def test_whatever_is_configured_a_slate_is_a_permutation_with_chances(
    config: RerankingConfig, num: int, k: int, seed: int, live: bool
) -> None:
    items = RerankingItems(unit(20), np.arange(20, dtype=np.int32) % 3, WORLD)
    row = {f"i{i}": i for i in range(20)}
    exploration = Exploration(1, ExplorationConfig(share=0.5))
    stage = Reranking(items, config, row.get, exploration)
    query = Query(
        np.array([19], np.int32), k=k, seed=seed, explore=live, now_ms=NOW_MS, record=STATE.encode()
    )
    [out] = stage([query], [ranked(num)])
    assert sorted(out.item_index.tolist()) == list(range(num))
    if out.propensity is not None:
        assert len(out.propensity) == num
        assert ((out.propensity[:k] > 0) & (out.propensity[:k] <= 1 + 1e-6)).all()
    [again] = stage([query], [ranked(num)])
    assert again.item_index.tolist() == out.item_index.tolist()
    moves_first = config.freshness or config.long_tail or config.dedupe or config.frequency_cap
    if not moves_first and config.sampling is None:
        first = min(config.keep_top, 3, num)  # exploration begins at slot 3
        assert out.item_index[:first].tolist() == list(range(first))


def test_the_steps_tell_which_rule_moved_an_item() -> None:
    row = {f"i{i}": i for i in range(20)}
    config = RerankingConfig(
        keep_top=1,
        mmr=None,
        spread=SpreadConfig(apart=1),
        rules=(Pin(match=Match(item_ids=("i9",)), rank=2),),
    )
    stage = Reranking(RerankingItems(unit(20), np.arange(20, dtype=np.int32) // 10, WORLD), config, row.get)
    query = Query(NOTHING, k=5, now_ms=NOW_MS)
    steps = {rule: slate.item_index.tolist() for rule, slate in stage.steps(query, ranked(20))}
    assert list(steps)[:4] == ["fatigue", "rules", "spread", "category_cap"]
    assert steps["fatigue"] == list(range(20))
    assert steps["rules"][:3] == [0, 9, 1]
    assert steps["spread"][:4] == [0, 9, 10, 1]
    assert list(steps.values())[-1] == stage([query], [ranked(20)])[0].item_index.tolist()


def test_the_order_of_the_stages_is_that_of_the_config() -> None:
    from tastemaker.stages.reranking import _OF_THE_LIST

    names = [name for name, _ in _OF_THE_LIST]
    assert names == [name for name in RerankingConfig.model_fields if name in names]


def test_a_list_of_every_length_is_answered_by_a_world_without_traits() -> None:
    items = RerankingItems(unit(6), np.full(6, -1, np.int32))
    config = RerankingConfig(
        dedupe=DedupeConfig(), freshness=FreshnessConfig(), franchise_cap=FranchiseCapConfig(),
        exposure=ExposureConfig(floors=(Floor(match=Match(tags=("x",)), share=0.5),)),
        rules=(Pin(match=Match(item_ids=("i5",)), rank=1),),
    )  # fmt: skip
    for num in range(7):
        [out] = Reranking(items, config)([Query(NOTHING, k=3)], [ranked(num)])
        assert sorted(out.item_index.tolist()) == list(range(num))


def test_traits_of_another_catalogue_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="one catalogue"):
        RerankingItems(unit(3), np.zeros(3, np.int32), catalogue({}, {}))


def test_permutations_of_two_pages_never_lose_an_item() -> None:
    for rows in permutations(range(4)):
        before = ranked(4).take(list(rows))
        [out] = Reranking(RerankingItems(unit(4), np.zeros(4, np.int32)))([Query(NOTHING, k=2)], [before])
        assert sorted(out.item_index.tolist()) == [0, 1, 2, 3]
