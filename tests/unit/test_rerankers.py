"""Each reranking stage by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NOW_MS, event, state_of
from reranked import DAY_MS, NOTHING, catalogue, order_of, unit

from tastemaker.data.item_rows import Item, table_of
from tastemaker.stages.business_rules import Boost
from tastemaker.stages.matching import ItemMatcher, Match
from tastemaker.stages.rerankers.boosts import FreshnessConfig, LongTailConfig, freshness, long_tail
from tastemaker.stages.rerankers.calibrated import CalibratedConfig, calibrated_order, divergence
from tastemaker.stages.rerankers.caps import FranchiseCapConfig, SpreadConfig
from tastemaker.stages.rerankers.deferral import DedupeConfig, FrequencyCapConfig
from tastemaker.stages.rerankers.dpp import dpp_order
from tastemaker.stages.rerankers.exposure import Ceiling, ExposureConfig, Floor
from tastemaker.stages.rerankers.mmr import mmr_order
from tastemaker.types import Query

# --- variety


def plain_mmr(relevance: list[float], vectors: list[list[float]], weight: float, places: int) -> list[int]:
    chosen = [0]
    left = list(range(1, len(relevance)))
    while left and len(chosen) < places:
        gains = [
            weight * relevance[i]
            - (1 - weight)
            * max(sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) for j in chosen)
            for i in left
        ]
        chosen.append(left.pop(gains.index(max(gains))))
    return chosen


@given(st.integers(1, 25), st.integers(0, 1000), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_mmr_is_the_loop_that_one_would_write(num: int, seed: int, weight: float) -> None:
    vectors, relevance = unit(num, seed=seed), np.sort(np.random.default_rng(seed).random(num))[::-1]
    found = mmr_order(relevance.astype(np.float32), vectors, weight, keep_top=1, places=10)
    wanted = plain_mmr(relevance.astype(np.float32).tolist(), vectors.tolist(), weight, min(10, num))
    assert found[: len(wanted)].tolist() == wanted
    rest = [place for place in range(num) if place not in wanted]
    assert found[len(wanted) :].tolist() == rest


@given(st.integers(1, 9), st.integers(0, 1000), st.floats(0.05, 0.9), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_dpp_is_the_greedy_choice_by_whole_determinants(
    num: int, seed: int, weight: float, keep_top: int
) -> None:
    vectors, luck = unit(num, dim=12, seed=seed), np.random.default_rng(seed)
    relevance = np.sort(luck.random(num))[::-1].astype(np.float32)
    kernel = (1 + vectors.astype(np.float64) @ vectors.T.astype(np.float64)) / 2
    chosen = list(range(min(keep_top, num)))
    while len(chosen) < num:
        value = {
            i: weight * float(relevance[[*chosen, i]].sum())
            + (1 - weight) * np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1]
            for i in range(num)
            if i not in chosen
        }
        chosen.append(max(value, key=value.__getitem__))
    assert dpp_order(relevance, vectors, weight, keep_top).tolist() == chosen


def test_dpp_puts_what_adds_nothing_behind() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    assert dpp_order(np.array([1, 0.9, 0.8, 0], np.float32), vectors, 0.7, 1).tolist() == [0, 3, 1, 2]
    assert dpp_order(np.array([1, 0.9, 0.8, 0], np.float32), vectors, 1.0, 1).tolist() == [0, 1, 2, 3]


# --- the mix


def test_calibration_by_hand() -> None:
    """History half a, half b; weight .5, smoothing .01. Relevance 1, .9, .1 of a, a, b; item 0 stays.

    With 1: q = (1, 0), q~ = (.995, .005), half the sum of logs is -2.652, so .45 + .5 * -2.652 = -.876.
    With 2: q = (.5, .5), q~ the same, sum -.693, so .05 + .5 * -.693 = -.297. Item 2 comes.
    """
    share = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    order = calibrated_order(
        np.array([1, 0.9, 0.1], np.float32), share, np.array([0.5, 0.5]), 0.5,
        keep_top=1, places=3, smoothing=0.01,
    )  # fmt: skip
    assert order.tolist() == [0, 2, 1]
    near = np.log([0.995, 0.005]).mean()
    assert 0.45 + 0.5 * near == pytest.approx(-0.876, abs=1e-3)
    assert 0.05 + 0.5 * np.log(0.5) == pytest.approx(-0.297, abs=1e-3)


@given(
    num=st.integers(1, 12),
    num_groups=st.integers(1, 5),
    weight=st.floats(0.05, 0.95),
    keep_top=st.integers(0, 3),
    places=st.integers(1, 14),
    is_whole=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_calibration_takes_what_its_formula_says(
    num: int, num_groups: int, weight: float, keep_top: int, places: int, is_whole: bool, seed: int
) -> None:
    luck = np.random.default_rng(seed)
    relevance = np.sort(luck.random(num))[::-1].astype(np.float32)
    share = luck.multinomial(1 if is_whole else 3, np.ones(num_groups) / num_groups, num).astype(np.float64)
    share *= luck.random(num)[:, None] < 0.8  # some items have no group
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
    target = luck.random(num_groups) * (luck.random(num_groups) < 0.8) + 1e-3
    target /= target.sum()
    order = calibrated_order(
        relevance, share, target, weight, keep_top=keep_top, places=places, smoothing=0.01
    ).tolist()

    def value(chosen: list[int], i: int) -> float:
        """(1 - weight) * relevance - weight * KL, with the mean of those that have any share."""
        shares = [share[j] for j in [*chosen, i] if share[j].any()]
        mean = np.mean(shares, axis=0) if shares else np.zeros(num_groups)
        return (1 - weight) * float(relevance[i]) - weight * divergence(target, mean)

    last = min(places, num)
    assert order[: min(keep_top, last)] == list(range(min(keep_top, last)))
    for place in range(keep_top, last):
        chosen, left = order[:place], [i for i in range(num) if i not in order[:place]]
        best = max(value(chosen, i) for i in left)
        assert value(chosen, order[place]) == pytest.approx(best, abs=1e-9)
    assert order[last:] == sorted(order[last:])


def test_divergence_is_nothing_where_the_mix_is_that_of_the_history() -> None:
    assert divergence(np.array([0.3, 0.7]), np.array([0.3, 0.7])) == pytest.approx(0, abs=1e-12)


def test_a_history_of_two_kinds_gets_both() -> None:
    kinds = catalogue(*({"category": "a" if i < 8 else "b"} for i in range(12)))
    query = Query(np.array([0, 9], np.int32), k=6, now_ms=NOW_MS)
    plain = order_of(kinds, query)
    mixed = order_of(kinds, query, calibrated=CalibratedConfig(weight=0.7))
    assert all(row < 8 for row in plain[:6])
    assert any(row >= 8 for row in mixed[:3])
    assert sorted(mixed) == list(range(12))
    stranger = Query(NOTHING, k=6, now_ms=NOW_MS)
    assert order_of(kinds, stranger, calibrated=CalibratedConfig(weight=0.7)) == list(range(12))


def test_a_mix_of_tags_reads_tags() -> None:
    kinds = catalogue(*({"tags": ["a", "c"] if i < 8 else ["b"]} for i in range(12)))
    query = Query(np.array([0, 9], np.int32), k=6, now_ms=NOW_MS)
    by_tags = order_of(kinds, query, calibrated=CalibratedConfig(weight=0.7, by="tags"))
    assert any(row >= 8 for row in by_tags[:3])
    assert order_of(kinds, query, calibrated=CalibratedConfig(weight=0.7)) == list(range(12))


# --- caps, spread, exposure


def test_one_franchise_has_so_many_places_on_a_page() -> None:
    series = catalogue(*({"franchise": "wars"} if i < 4 else {} for i in range(8)))
    cap = FranchiseCapConfig(page=4, max_per_franchise=1)
    # pages of 4: item 0, then 4 to 6 without one; then item 1 and 7, and 2, 3 as nothing else is left
    assert order_of(series, franchise_cap=cap) == [0, 4, 5, 6, 1, 7, 2, 3]


def test_items_of_a_category_stand_apart_where_others_are_left() -> None:
    kinds = catalogue(*({"category": name} for name in "aaabbc"))
    assert order_of(kinds, spread=SpreadConfig(apart=1)) == [0, 3, 1, 4, 2, 5]
    assert order_of(kinds, spread=SpreadConfig(apart=1), keep_top=2) == [0, 1, 3, 2, 4, 5]
    assert order_of(kinds, spread=SpreadConfig(apart=2)) == [0, 3, 5, 1, 4, 2]  # at last there is no other


def test_what_is_over_its_ceiling_comes_behind() -> None:
    items = catalogue(*({"tags": ["ad"]} for _ in range(3)), *({} for _ in range(3)))
    ceiling = Ceiling(match=Match(tags=("ad",)), share=0.25)
    # One of the first four places; two of the first eight, and there are no others for the sixth.
    assert order_of(items, exposure=ExposureConfig(ceilings=(ceiling,))) == [0, 3, 4, 5, 1, 2]
    none = Ceiling(match=Match(tags=("ad",)), share=0)
    assert order_of(items, exposure=ExposureConfig(ceilings=(none,))) == [3, 4, 5, 0, 1, 2]


def test_few_taken_items_get_their_share() -> None:
    items = catalogue(*({} for _ in range(8)), interactions=[9, 9, 9, 9, 9, 9, 1, 0])
    floor = Floor(match=Match(max_interactions=1), share=0.25)
    assert order_of(items, exposure=ExposureConfig(floors=(floor,))) == [0, 1, 2, 6, 3, 4, 5, 7]


# --- what moves single items


def test_what_new_and_little_known_items_gain_by_hand() -> None:
    items = catalogue(
        {"created_at_ms": NOW_MS}, {"created_at_ms": NOW_MS - 14 * DAY_MS}, {}, interactions=[4, 2, 0]
    )
    rows = np.arange(3, dtype=np.int32)
    assert freshness(items, rows, NOW_MS, FreshnessConfig(strength=0.2)).tolist() == pytest.approx(
        [0.2, 0.1, 0]
    )
    # of three items two were taken less often than the first, one than the second, none than the third
    assert long_tail(items, rows, LongTailConfig(strength=0.3)).tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_how_many_were_taken_less_is_known_as_items_come() -> None:
    items = catalogue({}, {}, {}, interactions=[5, 0, 9])
    assert items.num_less.tolist() == [1, 0, 2]
    more = table_of([(name, Item.model_validate({"item_id": name}).encode()) for name in ("i1", "i3")])
    grown = items.after(np.array([1, 3], np.int32), more)
    assert grown.num_less.tolist() == [2, 0, 3, 0]  # 5 > 0, 0; 9 > 5, 0, 0
    later = grown.after(np.array([4], np.int32), more.slice(0, 1))
    assert later.num_less.tolist() == [3, 0, 4, 0, 0]
    anew = replace(later)
    assert anew.num_less.tolist() == later.num_less.tolist()


def test_a_release_of_today_passes_who_is_near() -> None:
    items = catalogue({}, {}, {"created_at_ms": NOW_MS}, {}, {})  # relevance 1, .75, .5, .25, 0
    assert order_of(items, freshness=FreshnessConfig(strength=0.3)) == [0, 2, 1, 3, 4]


def test_boosts_of_people_raise_and_lower() -> None:
    items = catalogue({}, {"tags": ["dull"]}, {}, {"category": "own"}, {})
    rules = (
        Boost(match=Match(categories=("own",)), amount=0.6),
        Boost(match=Match(tags=("dull",)), amount=-1.0),
    )
    assert order_of(items, rules=rules) == [0, 3, 2, 4, 1]


# --- what comes behind


def test_equal_titles_and_series_come_once_before_all_else() -> None:
    items = catalogue(
        {"title": "The  Show"},
        {"title": "the show"},
        {"franchise": "x"},
        {"title": "b", "franchise": "x"},
        {},
    )
    assert order_of(items, dedupe=DedupeConfig()) == [0, 2, 3, 4, 1]
    assert order_of(items, dedupe=DedupeConfig(by=("title", "franchise"))) == [0, 2, 4, 1, 3]


def test_what_was_shown_as_often_as_it_may_be_comes_last() -> None:
    items = catalogue(*({} for _ in range(4)))
    state = state_of(*(event("u", "i0", "impression") for _ in range(3)), event("u", "i1", "impression"))
    cap = FrequencyCapConfig(most=3, window_days=2)

    def asked(after_days: float, history: np.ndarray = NOTHING) -> Query:
        now_ms = NOW_MS + int(after_days * DAY_MS)
        return Query(history, k=4, now_ms=now_ms, record=state.encode(), exclude_seen=False)

    assert order_of(items, asked(1), frequency_cap=cap) == [1, 2, 3, 0]
    assert order_of(items, asked(3), frequency_cap=cap) == [0, 1, 2, 3]
    assert order_of(items, asked(1, np.array([0], np.int32)), frequency_cap=cap) == [0, 1, 2, 3]


def test_traits_follow_items_that_are_put() -> None:
    traits = catalogue({"category": "a", "price": 3.0}, {"franchise": "f"}, interactions=[5, 6])
    rows = {"i1": Item(item_id="i1", tags=["new"], price=1.0), "x": Item(item_id="x", category="z")}
    put = table_of([(item_id, item.encode()) for item_id, item in rows.items()])
    after = traits.after(np.array([1, 2], np.int32), put)
    matcher = ItemMatcher(after, {"i0": 0, "i1": 1, "x": 2}.get)
    assert len(after) == 3
    everywhere = partial(matcher.among, rows_K=np.arange(3, dtype=np.int32), now_ms=NOW_MS)
    assert everywhere(Match(categories=("z", "a"))).tolist() == [True, False, True]
    assert everywhere(Match(tags=("new",))).tolist() == [False, True, False]
    assert everywhere(Match(franchises=("f",))).tolist() == [False, False, False]
    assert everywhere(Match(max_price=2.0)).tolist() == [False, True, False]
    assert everywhere(Match(max_interactions=5)).tolist() == [True, False, True]
    assert len(traits) == 2
    assert isinstance(put, pa.Table)
