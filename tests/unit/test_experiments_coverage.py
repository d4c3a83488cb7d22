"""The share of the catalogue that a variant shows: rarefied by unit, with an interval that holds where resampling has none."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, experiment, write
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.metrics import metric_of
from tastemaker.experiments.reporting.comparisons import MetricReport, compare
from tastemaker.experiments.reporting.coverage import (
    NUM_GROUPS,
    coverage,
    expected_distinct,
    groups,
    least_variance,
)
from tastemaker.experiments.reporting.lists import Lists
from tastemaker.experiments.reporting.observations import Observations, read_observations, where
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.home import Home

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def read(home: Home) -> Observations:
    return read_observations(home, CATALOGUE, experiment(), START_MS + 30 * DAY_MS)


def reported(home: Home, num_items: int) -> MetricReport:
    return compare(read(home), metric_of("coverage"), Weighing(experiment(), 0.95, num_items=num_items))


@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=6), st.integers(1, 6))
def test_rarefaction_equals_the_mean_over_all_draws_of_units(seen: list[set[int]], wanted: int) -> None:
    wanted = min(wanted, len(seen))
    draws = [len(set.union(*drawn)) for drawn in combinations(seen, wanted)]
    units_I = np.array([sum(item in one for one in seen) for item in range(4)])
    assert expected_distinct(units_I, len(seen), wanted) == pytest.approx(np.mean(draws), abs=1e-9)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(0.5, 9))
def test_more_units_see_no_fewer_items_whole_numbers_of_them_or_not(units: list[int], wanted: float) -> None:
    units_I = np.array(units)
    fewer, more = (expected_distinct(units_I, 9, one) for one in (wanted, min(9.0, wanted + 0.3)))
    assert -1e-9 <= fewer <= more + 1e-9
    assert more <= (units_I > 0).sum() + 1e-9


def test_coverage_is_compared_at_the_same_number_of_places(home: Home) -> None:
    decisions = [decision(f"a{n}", f"a{n}", "a", n, item_ids=[f"i{n % 8}"]) for n in range(200)]
    decisions += [decision(f"b{n}", f"b{n}", "b", n, item_ids=[f"i{n % 4}"]) for n in range(100)]
    write(home, decisions)
    found = coverage(read(home), 2, 16)
    # 100 of a's 200 units miss one of its eight items, which 25 have, with C(175, 100) / C(200, 100) = 6e-9.
    assert found.value_V.tolist() == pytest.approx([8 / 16, 4 / 16], abs=1e-6)
    one_variant = where(read(home), read(home).variant_R == 0)
    few = Weighing(experiment(), 0.95, num_items=16)
    assert "has shown no list" in str(compare(one_variant, metric_of("coverage"), few).comparisons[0].reason)


def test_visits_that_show_the_same_again_add_no_items(home: Home) -> None:
    """40 units of a see two items of their own in two visits each, 20 of b the same: as many places hold as many items."""
    write(home, [
        decision(f"{v}{u}-{visit}", f"{v}{u}", v, 100 * u + visit, item_ids=[f"i{2 * u}", f"i{2 * u + 1}"])
        for v, num in (("a", 40), ("b", 20)) for u in range(num) for visit in range(2)
    ])  # fmt: skip
    # 80 places are 20 units of either, who see 2 items each: 40 of 80. By place, a would have 160 - 80 = 80 of its 160 left,
    # and miss an item only where both of its places are: 80 * (1 - 1/4) = 60 items.
    assert coverage(read(home), 2, 80).value_V.tolist() == pytest.approx([40 / 80, 40 / 80], abs=1e-12)


def test_where_all_was_shown_the_interval_has_a_width_and_no_more_than_the_catalogue(home: Home) -> None:
    write(home, [
        decision(f"{v}{u}", f"{v}{u}", v, u, item_ids=[f"i{(3 * u + place) % 20}" for place in range(3)])
        for v in "ab" for u in range(40)
    ])  # fmt: skip
    a, _ = reported(home, 20).values
    assert a.value == 1.0
    # Six units see each item: no group's absence loses one. At the least 20 (1/2^7 - 1/3^7) items squared.
    assert a.low == pytest.approx(1 - 1.96 * (20 * (1 / 2**7 - 1 / 3**7)) ** 0.5 / 20, abs=1e-4)
    assert a.high == 1.0
    of_many = reported(home, 1000).values[0]
    assert of_many.high == pytest.approx(
        (20 - np.log(0.05)) / 1000
    )  # three of what was never shown may be expected


def test_fewer_units_of_a_variant_than_groups_are_told(home: Home) -> None:
    write(home, [
        decision(f"{v}{u}", f"{v}{u}", v, u, item_ids=[f"i{u}"]) for v, num in (("a", 40), ("b", 12)) for u in range(num)
    ])  # fmt: skip
    with pytest.raises(ExperimentError, match="is 12"):
        coverage(read(home), 2, 80)


def test_an_item_that_many_saw_is_certain() -> None:
    many = np.array([50, 0])
    assert least_variance(many[:1], np.array([20]), 1.0) < 1e-15
    assert least_variance(many, np.array([20, 0]), 0.1) == pytest.approx((0.3 / 1.96) ** 2, rel=0.01)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_of_what_nobody_saw_as_much_is_expected_as_the_level_says(home: Home, level: float) -> None:
    write(home, [decision(f"{v}{u}", f"{v}{u}", v, u) for v in "ab" for u in range(40)])
    weighing = Weighing(experiment(), level, num_items=1000)
    a, _ = compare(read(home), metric_of("coverage"), weighing).values
    assert a.high == pytest.approx((2 - np.log(1 - level)) / 1000)


def test_the_units_of_each_variant_are_in_groups_of_one_size(home: Home) -> None:
    luck = np.random.default_rng(0)
    observed = drawn(read_any(home), luck, np.ones(30), (43, 66))
    group_U, variant_U = groups(observed), first_variants(observed)
    for v, num in enumerate((43, 66)):
        sizes = np.bincount(group_U[variant_U == v], minlength=NUM_GROUPS)
        assert sizes.sum() == num
        assert sizes.max() - sizes.min() == 1
    assert (coverage(observed, 2, 30).influence_UV[: len(group_U)][variant_U == 0, 1] == 0).all()


def test_one_group_at_a_time_is_in_memory(home: Home) -> None:
    observed, num_items = drawn(read_any(home), np.random.default_rng(0), np.ones(30), (40, 40)), 200_000
    wide = replace(observed, lists=replace(observed.lists, items=np.arange(num_items)))
    tracemalloc.start()
    coverage(wide, 2, num_items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        peak < 15 * 2 * num_items * 8
    )  # of two variants' 64 bits an item, 20 times of which all groups would take


@pytest.mark.parametrize(
    ("world", "num_units", "twice", "widest"),
    [
        ("all shown", (60, 60), 0.7, np.inf), ("nearly all shown", (60, 60), 0.7, 3.0), ("unequal", (40, 200), 0.7, 2.5),
        ("seldom", (40, 40), 0.7, 1.5), ("most never", (40, 40), 0.7, 3.0), ("many items", (60, 60), 0.7, 1.5),
        ("flat", (40, 40), 0.7, 1.5), ("flat", (43, 66), 0.7, 1.5), ("flat", (40, 40), 0.0, 1.8),
    ],
)  # fmt: skip
def test_intervals_hold_the_truth_and_are_not_much_too_wide(
    home: Home, world: str, num_units: tuple[int, int], twice: float, widest: float
) -> None:
    """Units come in any order. The truth is of a great many units, as many of them as have the places that were compared.

    Where hardly any two lists share an item ("flat", each unit with one list), luck is of pairs of units, each of which the jackknife's variance has
    twice [Efron & Stein 1981]: its errors are up to 1.4 times too large.
    """
    luck, logged, chance_I = np.random.default_rng(3), read_any(home), CHANCES[world]
    places, runs = (10, 60) if world == "flat" else (3, 100)
    many_units_I, many_places = _many(luck, chance_I, places, twice)
    off, errors = [], []
    for _ in range(runs):
        observed = drawn(logged, luck, chance_I, num_units, places, twice)
        found = coverage(observed, 2, len(chance_I))
        wanted = MANY * np.bincount(observed.variant_R).min() * places / many_places
        truth = expected_distinct(many_units_I, MANY, wanted)
        off.append(found.value_V * len(chance_I) - truth)
        errors.append(np.linalg.norm(found.influence_UV, axis=0) * len(chance_I))
    off_NV, error_NV = np.array(off), np.array(errors)
    held = (np.abs(off_NV) <= 1.96 * error_NV).mean()
    apart = np.abs(off_NV[:, 1] - off_NV[:, 0]) > 1.96 * np.linalg.norm(error_NV, axis=1)
    assert held >= 0.95 - 2 * (0.95 * 0.05 / (2 * runs)) ** 0.5
    assert apart.mean() <= 0.05 + 2 * (0.95 * 0.05 / runs) ** 0.5
    assert (error_NV.mean(axis=0) <= widest * off_NV.std(axis=0, ddof=1)).all()


CHANCES: dict[str, Floats] = {
    "all shown": np.ones(20),
    "nearly all shown": np.ones(50),
    "unequal": 1 / np.arange(1, 31) ** 0.7,
    "seldom": np.r_[1.0, 1.0, 1.0, np.full(47, 4e-4)],
    "most never": np.r_[1.0, 1.0, 1.0, np.full(47, 1e-4)],
    "many items": 1 / np.arange(1, 301),
    "flat": np.ones(5000),
}
"""How readily items are shown."""
MANY = 2000
"""Units, of which truths are."""


def read_any(home: Home) -> Observations:
    """Of a log; `drawn` puts others into its place."""
    write(home, [decision("a", "a", "a", 0)])
    return read(home)


def first_variants(observed: Observations) -> Ints:
    unit_N, first_N = np.unique(observed.unit_R, return_index=True)
    assert unit_N.tolist() == list(range(len(observed.units)))
    return observed.variant_R[first_N]


def drawn(
    logged: Observations,
    luck: np.random.Generator,
    chance_I: Floats,
    num_units: Sequence[int],
    places: int = 3,
    twice: float = 0.7,
) -> Observations:
    """Two variants' units by one numbering, as they came: each with a list and, `twice` of them, another that half of these see unchanged."""
    variant_U = luck.permutation(np.repeat([0, 1], num_units))
    first_US, second_US, twice_U = _visits(luck, chance_I, len(variant_U), places, twice)
    unit_R = np.r_[np.arange(len(variant_U)), np.flatnonzero(twice_U)]
    item_S = np.concatenate([first_US.ravel(), second_US[twice_U].ravel()])
    lists = Lists(np.arange(len(chance_I)), np.arange(len(unit_R) + 1) * places, item_S)
    rows = replace(logged.rows, unit_R=unit_R, variant_R=variant_U[unit_R], list_R=np.arange(len(unit_R)))
    return replace(logged, units=np.arange(len(variant_U)), rows=rows, lists=lists)


def _many(luck: np.random.Generator, chance_I: Floats, places: int, twice: float) -> tuple[Ints, int]:
    """How many of many units see each item (I,), and in how many places."""
    first_US, second_US, twice_U = _visits(luck, chance_I, MANY, places, twice)
    second_US[~twice_U] = first_US[~twice_U]
    met = np.unique(np.arange(MANY)[:, None] * len(chance_I) + np.hstack([first_US, second_US]))
    return np.bincount(met % len(chance_I), minlength=len(chance_I)), places * (MANY + int(twice_U.sum()))


def _visits(
    luck: np.random.Generator, chance_I: Floats, num_units: int, places: int, twice: float
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    first_US, second_US = (_lists(luck, chance_I, num_units, places) for _ in range(2))
    again_U = luck.random(num_units) < 0.5
    second_US[again_U] = first_US[again_U]
    return first_US, second_US, luck.random(num_units) < twice


def _lists(luck: np.random.Generator, chance_I: Floats, num_units: int, places: int) -> Ints:
    """Items drawn without replacement by their chances (Gumbel's trick)."""
    keys_UI = np.log(chance_I) + luck.gumbel(size=(num_units, len(chance_I)))
    return np.argpartition(-keys_UI, places, axis=1)[:, :places]
