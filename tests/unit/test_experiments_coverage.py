"""The share of the catalogue that a variant shows: rarefied by unit, with an interval that holds where resampling has none."""

from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, experiment, write
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.experiments.metrics import metric_of
from tastemaker.experiments.reporting.comparisons import MetricReport, compare
from tastemaker.experiments.reporting.coverage import (
    Shown,
    coverage,
    covered,
    expected_distinct,
    least_variance,
)
from tastemaker.experiments.reporting.observations import Observations, read_observations, where
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.home import Home

NUM_GROUPS = 20
Floats = npt.NDArray[np.float64]


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
    assert of_many.high == pytest.approx((20 + 3) / 1000)  # three of what was never shown may be expected


def test_an_item_that_many_saw_is_certain() -> None:
    assert least_variance(np.array([50]), 1.0) < 1e-15
    assert least_variance(np.array([50, 0]), 0.1) == pytest.approx((0.3 / 1.96) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    ("world", "num_units"),
    [
        ("all shown", (60, 60)), ("nearly all shown", (60, 60)), ("unequal", (40, 200)), ("seldom", (40, 40)),
        ("most never", (40, 40)), ("many items", (60, 60)),
    ],
)  # fmt: skip
def test_intervals_hold_the_truth_and_two_of_the_same_are_not_told_apart(
    world: str, num_units: tuple[int, int]
) -> None:
    """The jackknife alone missed the truth in 10% ("nearly all shown"), 17% ("seldom") and 68% ("most never").

    Rarefied by place instead of by unit, a third of pairs with 60 and 600 units were told apart.
    """
    luck = np.random.default_rng(3)
    chance_I = CHANCES[world]
    num_units_least = min(num_units)
    truth = np.mean(
        [_variant(luck, chance_I, num_units_least)[0].units_I.astype(bool).sum() for _ in range(400)]
    )
    held, same = [], []
    for _ in range(100):
        made = [_variant(luck, chance_I, num) for num in num_units]
        part_GV = [[parts[g] for _, parts in made] for g in range(NUM_GROUPS)]
        value_V, influence_GV, lacking_V = covered([whole for whole, _ in made], part_GV)
        margin_V = 1.96 * np.sqrt((influence_GV**2).sum(axis=0) + lacking_V)
        held += (np.abs(value_V - truth) <= margin_V).tolist()
        same.append(abs(value_V[1] - value_V[0]) <= np.linalg.norm(margin_V))
    assert np.mean(held) >= 0.91  # 95%, less two standard errors of 200
    assert np.mean(same) >= 0.9


CHANCES: dict[str, Floats] = {
    "all shown": np.ones(20),
    "nearly all shown": np.ones(50),
    "unequal": 1 / np.arange(1, 31) ** 0.7,
    "seldom": np.r_[1.0, 1.0, 1.0, np.full(47, 4e-4)],
    "most never": np.r_[1.0, 1.0, 1.0, np.full(47, 1e-4)],
    "many items": 1 / np.arange(1, 301),
}
"""How readily items are shown."""


def _variant(luck: np.random.Generator, chance_I: Floats, num_units: int) -> tuple[Shown, list[Shown]]:
    """All units of a variant, each with a list of three and, seven of ten, another that half of them see unchanged; and by group."""
    first_US, second_US = (_lists(luck, chance_I, num_units) for _ in range(2))
    again_U, once_U = luck.random(num_units) < 0.5, luck.random(num_units) < 0.3
    second_US[again_U | once_U] = first_US[again_U | once_U]
    seen_UI = np.zeros((num_units, len(chance_I)), bool)
    for lists_US in (first_US, second_US):
        np.put_along_axis(seen_UI, lists_US, True, axis=1)
    places_U = np.where(once_U, 3, 6)
    group_U = np.arange(num_units) % NUM_GROUPS
    parts = [
        Shown(seen_UI[group_U == g].sum(axis=0), int((group_U == g).sum()), int(places_U[group_U == g].sum()))
        for g in range(NUM_GROUPS)
    ]
    return Shown(seen_UI.sum(axis=0), num_units, int(places_U.sum())), parts


def _lists(luck: np.random.Generator, chance_I: Floats, num_units: int) -> npt.NDArray[np.int64]:
    """Three items each, drawn without replacement by their chances (Gumbel's trick)."""
    keys_UI = np.log(chance_I) + luck.gumbel(size=(num_units, len(chance_I)))
    return np.argsort(-keys_UI, axis=1)[:, :3]
