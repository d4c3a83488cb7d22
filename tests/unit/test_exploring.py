"""Items that few have seen get a stated share of serving's traffic, and none of an evaluation's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagged import NUM_ITEMS, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.thompson import beta_weights
from tastemaker.features.well_known import MOST_IMPRESSIONS, Tried
from tastemaker.stages.exploring import Exploration, ExplorationConfig, FreshSource, bundle_pool, explores
from tastemaker.stages.live import LiveStages
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Query

NOBODY = np.empty(0, np.int32)
ALWAYS = ExplorationConfig(share=1.0, first_slot=3, num_proposed=4)
BIT = 2


def slate(num: int, fresh: list[int]) -> Candidates:
    mask = np.ones(num, np.uint32)
    mask[fresh] |= np.uint32(1 << BIT)
    score = np.linspace(1, 0, num, dtype=np.float32)
    return Candidates(np.arange(num, dtype=np.int32), score, mask, np.zeros((num, BIT), np.float32))


def query(seed: int, k: int = 10, **fields: object) -> Query:
    return Query(NOBODY, k=k, seed=seed, explore=True, **fields)  # type: ignore[arg-type]


def test_the_share_of_exploring_requests_is_the_configured_one() -> None:
    config = ExplorationConfig(share=0.1)
    explored = sum(explores(query(seed), config) for seed in range(5000))
    assert explored == pytest.approx(500, abs=4 * (5000 * 0.1 * 0.9) ** 0.5)
    assert not any(explores(replace(query(seed), explore=False), ALWAYS) for seed in range(100))


@given(st.integers(0, 2**60), st.integers(1, 30), st.integers(1, 20), st.sets(st.integers(0, 29)))
def test_a_slate_is_a_permutation_whose_first_slots_stay(seed: int, num: int, k: int, at: set[int]) -> None:
    before = slate(num, [place for place in at if place < num])
    after = Exploration(BIT, ALWAYS)(query(seed, k), before)
    assert sorted(after.item_index.tolist()) == list(range(num))
    assert after.item_index[:3].tolist() == before.item_index[:3].tolist()
    moved = set(after.item_index[:k].tolist()) - set(before.item_index[:k].tolist())
    assert len(moved) <= 1
    assert moved <= at
    again = Exploration(BIT, ALWAYS)(query(seed, k), before)
    assert again.item_index.tolist() == after.item_index.tolist()
    others = [row for row in after.item_index.tolist() if row not in moved]
    assert others == sorted(others)


def test_propensity_is_that_of_the_item_in_its_slot() -> None:
    stage, before = Exploration(BIT, ALWAYS), slate(12, [10, 11])
    seen: dict[tuple[int, int], int] = {}
    for seed in range(2800):
        after = stage(query(seed, k=10), before)
        assert after.propensity is not None
        (slot,) = np.flatnonzero(after.item_index[:10] >= 10)
        # 2 items, slots 3 to 9: that none of the slots before had one, and that this one has this one
        assert after.propensity[: slot + 1].prod() == pytest.approx(1 / 14)
        assert (after.propensity[slot + 1 :] == 1).all()
        key = int(slot), int(after.item_index[slot])
        seen[key] = seen.get(key, 0) + 1
    assert seen.keys() == {(slot, item) for slot in range(3, 10) for item in (10, 11)}
    assert all(count == pytest.approx(200, abs=4 * (2800 / 14 * 13 / 14) ** 0.5) for count in seen.values())


@pytest.mark.parametrize(("fresh", "k"), [([], 10), ([5], 10), ([11], 3)])
def test_nothing_moves_where_there_is_nothing_to_show(fresh: list[int], k: int) -> None:
    before = slate(12, fresh)
    after = Exploration(BIT, ALWAYS)(query(1, k), before)
    assert after.item_index.tolist() == before.item_index.tolist()
    assert after.propensity is None or (after.propensity == 1).all()


def test_the_pool_is_newest_first_and_knows_whom_many_took() -> None:
    counts = np.array([0, 50, 3, 2, 9], np.float32)
    created = np.array([np.nan, 900, 100, 100, 200])
    assert bundle_pool(counts, created, ExplorationConfig()).tolist() == [4, 3, 2, 0]


@given(st.integers(0, 2**60), st.integers(0, 8), st.booleans())
def test_put_items_go_first_and_hard_rules_hold(seed: int, num_put: int, last_is_known: bool) -> None:
    known = {19 + num_put: Tried(MOST_IMPRESSIONS, 0)} if last_is_known and num_put else {}
    pool = np.arange(5, dtype=np.int32)
    source = FreshSource(20, 20 + num_put, pool, ALWAYS, lambda: known)
    allowed = np.ones(20 + num_put, bool)
    allowed[2] = False
    exclude = np.array([20, 3], np.int32) if num_put else np.array([3], np.int32)
    rows = source.propose([query(seed, allowed=allowed, exclude=exclude)], 10)[0][0]
    drawn = [row for row in rows.tolist() if row >= 0]
    put = {*range(21, 20 + num_put)} - set(known)
    assert len(set(drawn)) == len(drawn) == min(len(put or {0, 1, 4}), ALWAYS.num_proposed)
    assert set(drawn) <= (put or {0, 1, 4})


def always(**fields: object) -> ExplorationConfig:
    return ExplorationConfig.model_validate({"share": 1.0} | fields)


def proposed_first(tried: dict[int, Tried], num: int) -> dict[int, float]:
    """How often each of 5 put items is the first that is proposed."""
    source = FreshSource(10, 15, NOBODY, always(num_proposed=1), lambda: tried)
    first = [int(source.propose([query(seed)], 1)[0][0][0]) for seed in range(num)]
    return {row: first.count(row) / num for row in range(10, 15)}


def test_what_nobody_has_seen_is_proposed_evenly() -> None:
    shares = proposed_first({}, 4000)
    assert list(shares.values()) == pytest.approx([0.2] * 5, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


def test_new_items_are_proposed_with_the_probability_that_people_click_them_most() -> None:
    tried = {10: Tried(100, 30), 11: Tried(100, 0), 12: Tried(40, 4)}
    shares = proposed_first(tried, 4000)
    best = beta_weights(
        tuple(
            Arm(one.shown, one.clicked, one.clicked)
            for one in (tried.get(row, Tried(0, 0)) for row in range(10, 15))
        ),
        (1.0, 9.0),
    )
    assert list(shares.values()) == pytest.approx(best, abs=4 * (0.25 / 4000) ** 0.5)
    assert shares[10] > shares[13] > shares[12] > shares[11]


def test_served_slates_explore_and_others_do_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    config = {"share": 0.5, "max_interactions": 0}
    live = LiveStages(open_bundle(store, exploration=config))
    rows = {name: Item(item_id=name, tags=["t3"]).encode() for name in ("x", "y")}
    live.take(ItemChanges("L", 1, False, ["x", "y"], dict(rows)))
    likes_t1 = np.array([1, 5, 9], np.int32)
    plain = live.pipeline.recommend([Query(likes_t1, k=6, seed=seed) for seed in range(40)])
    assert len({tuple(found.item_index.tolist()) for found in plain}) == 1
    served = live.pipeline.recommend([Query(likes_t1, k=6, seed=seed, explore=True) for seed in range(40)])
    explored = [found for found in served if {NUM_ITEMS, NUM_ITEMS + 1} & set(found.item_index.tolist())]
    assert 8 <= len(explored) <= 32
    assert all(found.item_index[:3].tolist() == plain[0].item_index[:3].tolist() for found in served)
