"""Rules that people write hold in the search, in the final filter and at their places, put items included."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gateway_world import World, items, make_face, variant
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NOW_MS
from tagged import NUM_ITEMS, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item, table_of
from tastemaker.errors import ConfigError
from tastemaker.features.traits import ItemTraits
from tastemaker.stages import kept_masks
from tastemaker.stages.business_rules import Block, Filter, HardRules, Pin, Rule
from tastemaker.stages.filtering import permitted
from tastemaker.stages.live import LiveStages
from tastemaker.stages.matching import ItemMatcher, Match, When
from tastemaker.stages.policy import StagePolicy, hard_rules_of, policy_of
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.pinning import pinned
from tastemaker.state.items import ItemChanges
from tastemaker.strict import Strict
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.pins import Pin as Pinned

NOTHING = np.empty(0, np.int32)
DAY_MS = 86_400_000
ROWS: list[dict[str, object]] = [
    {"category": "a", "price": 5.0, "created_at_ms": NOW_MS - 3 * DAY_MS, "tags": ["x", "y"]},
    {"category": "b", "price": 50.0, "created_at_ms": NOW_MS - 300 * DAY_MS, "franchise": "f"},
    {"category": "a", "tags": ["y"]},
    {},
]
TRAITS = ItemTraits.from_items(
    table_of(
        [(f"i{i}", Item.model_validate({"item_id": f"i{i}", **row}).encode()) for i, row in enumerate(ROWS)]
    ),
    np.array([9, 1, 0, 3], np.float32),
)
MATCHER = ItemMatcher(TRAITS, {f"i{i}": i for i in range(4)}.get)


@pytest.mark.parametrize(
    ("match", "rows"),
    [
        ({"item_ids": ["i3", "i1", "none"]}, [1, 3]),
        ({"categories": ["a"]}, [0, 2]),
        ({"tags": ["y", "z"]}, [0, 2]),
        ({"franchises": ["f"]}, [1]),
        ({"max_price": 10}, [0]),
        ({"min_price": 10}, [1]),
        ({"max_age_days": 30}, [0]),
        ({"min_age_days": 30}, [1]),
        ({"max_interactions": 1}, [1, 2]),
        ({"categories": ["a"], "tags": ["x"]}, [0]),
        ({"categories": ["none"]}, []),
    ],
)
def test_what_a_match_is_about(match: dict[str, object], rows: list[int]) -> None:
    about = MATCHER.among(Match.parse(match, "match"), np.arange(len(TRAITS), dtype=np.int32), NOW_MS)
    assert np.flatnonzero(about).tolist() == rows
    some = np.array([3, 0, 1], np.int32)
    assert MATCHER.among(Match.parse(match, "match"), some, NOW_MS).tolist() == about[some].tolist()


def test_a_match_without_a_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match="every item"):
        Match.parse({}, "match")


@pytest.mark.parametrize(
    ("when", "context", "is_so"),
    [
        ({"hours": [18, 19]}, {"local_time": "2026-11-24T18:30"}, True),
        ({"hours": [18, 19]}, {"local_time": "2026-11-24T20:30"}, False),
        ({"weekdays": ["tuesday"]}, {"local_time": "2026-11-24T18:30"}, True),
        ({"weekdays": ["monday", "sunday"]}, {"local_time": "2026-11-24T18:30"}, False),
        ({"seasons": ["sep-nov"]}, {"local_time": "2026-11-24T18:30"}, True),
        ({"devices": ["tv"]}, {"device": "TV"}, True),
        ({"devices": ["tv"]}, {"device": "mobile"}, False),
        ({"devices": ["other"]}, {}, False),
        ({"countries": ["de"]}, {"country": "DE"}, True),
        ({"countries": ["de"]}, {}, False),
        ({"countries": ["de"], "devices": ["tv"]}, {"country": "DE", "device": "mobile"}, False),
        ({}, {}, True),
    ],
)
def test_for_whom_a_rule_holds(when: dict[str, object], context: dict[str, str], is_so: bool) -> None:
    assert When.parse(when, "when").holds(Query(NOTHING, context=context)) == is_so


def shown(rules: tuple[Block | Filter, ...], query: Query) -> list[int]:
    applied = HardRules(lambda: MATCHER, rules).applied(query)
    return np.flatnonzero(permitted(applied, np.arange(4, dtype=np.int32))).tolist()


def test_blocks_and_filters_forbid_whatever_the_request_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    query = Query(NOTHING, now_ms=NOW_MS)
    block, alone = Block(match=Match(tags=("x",))), Filter(match=Match(categories=("a",)))
    some = np.array([True, True, False, True])
    for few in (1000, 0):  # by name, and by mask
        monkeypatch.setattr(kept_masks, "FEW_FORBIDDEN", few)
        assert shown((), query) == [0, 1, 2, 3]
        assert shown((block,), query) == [1, 2, 3]
        assert shown((alone,), query) == [0, 2]
        assert shown((block, alone), query) == [2]
        assert shown((block,), replace(query, allowed=some)) == [1, 3]
        assert shown((block,), replace(query, exclude=np.array([3], np.int32))) == [1, 2]
        tv_alone = Block(match=Match(tags=("x",)), when=When(devices=("tv",)))
        assert shown((tv_alone,), query) == [0, 1, 2, 3]
        assert shown((tv_alone,), replace(query, context={"device": "tv"})) == [1, 2, 3]


def test_an_age_moves_with_the_clock() -> None:
    only_new = Filter(match=Match(max_age_days=7))
    assert shown((only_new,), Query(NOTHING, now_ms=NOW_MS)) == [0]
    assert shown((only_new,), Query(NOTHING, now_ms=NOW_MS + 10 * DAY_MS)) == []


# --- pins


def slate(*rows: int) -> Candidates:
    score = np.linspace(0.9, 0.1, max(len(rows), 1)).astype(np.float32)[: len(rows)]
    return Candidates(np.array(rows, np.int32), score, np.ones(len(rows), np.uint32), score[:, None])


@pytest.mark.parametrize(
    ("pins", "order"),
    [
        ([({"item_ids": ["i3"]}, 1, 1)], [3, 0, 1, 2]),
        ([({"item_ids": ["i3", "i2"]}, 2, 2)], [0, 3, 2, 1]),
        ([({"categories": ["a"]}, 2, 5)], [1, 0, 2, 3]),  # the best-ranked two
        ([({"item_ids": ["i0"]}, 4, 1), ({"item_ids": ["i1"]}, 4, 1)], [2, 3, 0, 1]),
        ([({"item_ids": ["i0"]}, 9, 1)], [1, 2, 3, 0]),
        ([({"item_ids": ["i2"]}, 1, 1), ({"tags": ["y"]}, 1, 2)], [2, 0, 1, 3]),
    ],
)
def test_pins_stand_at_their_places(
    pins: list[tuple[dict[str, list[str]], int, int]], order: list[int]
) -> None:
    rules = [Pin.parse({"kind": "pin", "match": m, "rank": r, "most": n}, "pin") for m, r, n in pins]
    found = pinned(Query(NOTHING, k=4, now_ms=NOW_MS), slate(0, 1, 2, 3), MATCHER, rules)
    assert found.item_index.tolist() == order


def test_a_pinned_item_need_not_be_proposed_but_allowed() -> None:
    pin = Pin(match=Match(item_ids=("i3", "i2")), rank=1, most=1)
    added = pinned(Query(NOTHING, k=2, now_ms=NOW_MS), slate(0, 1), MATCHER, [pin])
    assert added.item_index.tolist() == [3, 0, 1]
    assert added.source_mask.tolist() == [4, 1, 1]  # the bit behind that of the one source and of fresh items
    assert np.isfinite(added.score).all()
    taken = Query(np.array([3], np.int32), k=2, now_ms=NOW_MS)
    assert pinned(taken, slate(0, 1), MATCHER, [pin]).item_index.tolist() == [2, 0, 1]
    blocked = HardRules(lambda: MATCHER, (Block(match=Match(item_ids=("i3",))),)).applied(
        replace(taken, history_L=NOTHING)
    )
    assert pinned(blocked, slate(0, 1), MATCHER, [pin]).item_index.tolist() == [2, 0, 1]


@settings(deadline=None)
@given(
    st.permutations(range(4)), st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=4, unique_by=lambda pin: pin[0]),
)  # fmt: skip
def test_pins_add_what_they_name_and_lose_nothing(
    rows: list[int], num: int, wanted: list[tuple[int, int]]
) -> None:
    pins = [Pin(match=Match(item_ids=(f"i{row}",)), rank=rank) for row, rank in wanted]
    before = replace(slate(*rows[:num]), propensity=np.full(num, 0.5, np.float32))
    found = pinned(Query(NOTHING, k=4, now_ms=NOW_MS), before, MATCHER, pins)
    assert sorted(found.item_index.tolist()) == sorted({*rows[:num], *(row for row, _ in wanted)})
    others = [row for row in found.item_index.tolist() if row not in {row for row, _ in wanted}]
    assert others == [row for row in rows[:num] if row in others]
    assert found.propensity is not None or not num
    if wanted and wanted[0][1] <= len(others) + 1:  # a place beyond the list is its end
        assert found.item_index[wanted[0][1] - 1] == wanted[0][0]


# --- through the stages and the gateway


class _Rules(Strict):
    rules: tuple[Rule, ...]


def policy(*rules: dict[str, object]) -> str:
    _Rules.parse({"rules": rules}, "rules")
    return StagePolicy.of({"reranking": {"rules": list(rules)}}).dump()


def test_put_items_are_blocked_boosted_and_pinned(tmp_path: Path) -> None:
    live = LiveStages(open_bundle(BundleStore(tmp_path / "bundles")))
    rows = {name: Item(item_id=name, category="promo", tags=["t1"]).encode() for name in ("x", "y")}
    live.take(ItemChanges("L", 1, False, ["x", "y"], dict(rows)))
    likes_t1 = np.array([1, 5, 9], np.int32)

    def answer(*rules: dict[str, object]) -> list[int]:
        query = Query(likes_t1, k=6, now_ms=NOW_MS, lineage="L", policy=policy(*rules) if rules else "")
        [found] = live.pipeline.recommend([query])
        return found.item_index.tolist()

    x, y = NUM_ITEMS, NUM_ITEMS + 1
    assert answer({"kind": "pin", "match": {"item_ids": ["y"]}, "rank": 2})[1] == y
    assert set(answer({"kind": "filter", "match": {"categories": ["promo"]}})) == {x, y}
    block = {"kind": "block", "match": {"categories": ["promo"]}}
    assert not {x, y} & set(answer(block, {"kind": "pin", "match": {"item_ids": ["y"]}, "rank": 2}))


@pytest.mark.parametrize("fault", ["none", "rerank", "rank", "retrieve"])
def test_a_blocked_item_is_gone_on_every_rung(fault: str) -> None:
    world = World()
    world.pins["champion"] = Pinned(1, make_face(hard_rules=(Block(match=Match(categories=("odd",))),)))
    world.graph.faults = {} if fault == "none" else {fault: "raises"}
    assert sorted(items(world.recommend("nobody", k=5))) == ["i0", "i2", "i4", "i6", "i8"]


def test_a_variants_rules_hold_for_its_requests_alone() -> None:
    world = World()
    block = {"kind": "block", "match": {"item_ids": ["i5"]}}
    assert "i5" in items(world.recommend("nobody", k=9))
    world.assignment = variant(policy={"reranking": {"rules": [block], "keep_top": 1}})
    assert "i5" not in items(world.recommend("nobody", k=9))
    asked = next(query for name, _, query in reversed(world.graph.queries) if name == "rerank")
    assert policy_of(asked.policy).reranking["keep_top"] == 1


def test_a_policy_that_nobody_can_read_changes_nothing_and_says_so() -> None:
    world = World()
    world.assignment = variant(policy={"until": "rank", "colour": "red"})
    answer = world.recommend("nobody", k=3)
    assert answer["degraded"] == ["no-policy"]
    assert items(answer)[0] == "i5"  # reranking ran


def test_a_policy_adds_rules_and_lifts_none() -> None:
    bundle = RerankingConfig(rules=(Block(match=Match(tags=("x",))),))
    added = StagePolicy.of({"reranking": {"rules": [{"kind": "filter", "match": {"categories": ["a"]}}]}})
    both = added.reranking_over(bundle).rules
    assert [rule.kind for rule in both] == ["block", "filter"]
    assert [rule.kind for rule in hard_rules_of(added.dump())] == ["filter"]
