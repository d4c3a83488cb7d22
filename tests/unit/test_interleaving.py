"""Team drafts: their laws, their credit by hand, and a verdict from fewer lists than a split needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.interleaving import Draft, team_draft, winner
from tastemaker.experiments.statistics.influence import difference
from tastemaker.experiments.statistics.preference import verdict
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence

rankings = st.permutations(range(12)).flatmap(lambda items: st.integers(0, 12).map(lambda n: items[:n]))


@given(rankings, rankings, st.integers(1, 12), st.text(max_size=5))
def test_a_draft_holds_the_best_of_both_in_their_order(
    first: list[int], second: list[int], k: int, request_id: str
) -> None:
    draft = team_draft(first, second, k, "s", request_id)
    assert len(draft.items) == min(k, len({*first, *second}))
    assert len(set(draft.items)) == len(draft.items)
    assert abs(draft.team.count(0) - draft.team.count(1)) <= 1
    for team, ranking in ((0, first), (1, second)):
        picks = [item for item, of in zip(draft.items, draft.team, strict=True) if of == team]
        assert picks == sorted(picks, key=ranking.index)
    assert draft == team_draft(first, second, k, "s", request_id)


@given(
    rankings,
    rankings,
    st.integers(1, 12),
    st.sets(st.integers(0, 11)),
    st.sets(st.integers(0, 11), max_size=3),
)
def test_nobodys_items_take_places_and_no_turns_and_fixed_ones_stand_where_they_are_put(
    first: list[int], second: list[int], k: int, nobodys: set[int], places: set[int]
) -> None:
    known = [*dict.fromkeys([*first, *second])]
    fixed = dict(zip(sorted(place for place in places if place < min(k, len(known))), known, strict=False))
    draft = team_draft(first, second, k, "s", "r", nobodys=nobodys, fixed=fixed)
    assert len(draft.items) == len(draft.team) == min(k, len(known))
    assert len(set(draft.items)) == len(draft.items)
    assert all(draft.items[place] == item for place, item in fixed.items())
    assert abs(draft.team.count(0) - draft.team.count(1)) <= 1
    free = nobodys | {*fixed.values()}
    assert all(team is None for item, team in zip(draft.items, draft.team, strict=True) if item in free)


@given(st.permutations(range(6)), st.integers(0, 100))
def test_equal_rankings_stay_as_they_are(ranking: list[int], request: int) -> None:
    assert team_draft(ranking, ranking, 6, "s", str(request)).items == tuple(ranking)


def test_what_the_longer_ranking_fills_is_of_no_team() -> None:
    draft = team_draft([1], [1, 2, 3, 4], 4, "s", "r")
    assert draft.items == (1, 2, 3, 4)
    assert draft.team in ((0, None, None, None), (1, None, None, None))
    assert winner(draft, {2, 3}) is None


def test_either_captain_begins_half_of_the_time() -> None:
    begins = [team_draft([1, 2], [3, 4], 2, "s", str(n)).team[0] for n in range(4000)]
    assert np.mean(begins) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_a_click_outside_the_list_is_refused() -> None:
    with pytest.raises(ExperimentError, match="clicked place of an interleaved list, is 2, must be 0 to 1"):
        winner(Draft((1, 2), (0, 1)), {2})


def test_a_verdict_by_hand() -> None:
    # Units: a +1 and +1, b 0, c -1: the preference is (2 + 0 - 1) / 4. Residuals score - lists / 4 are 1.5, -.25, -1.25.
    found = verdict(["a", "a", "b", "c"], [1, 1, None, 0])
    assert (found.num_lists, found.wins, found.ties, found.preference) == (4, (1, 2), 1, 0.25)
    error = (3 / 2 * (1.5**2 + 0.25**2 + 1.25**2) / 4**2) ** 0.5
    assert found.preference - found.low == pytest.approx(1.959964 * error, abs=1e-6)
    assert found.high == 1  # no preference is larger
    assert found.preferred is None


def test_one_unit_gives_no_verdict() -> None:
    with pytest.raises(ExperimentError, match="at least 2: wait for traffic"):
        verdict(["a", "a"], [1, 0])


# A world: 20 items, each person likes some; ranker 1 sees a little more of what they like than ranker 0.
NUM_ITEMS, K, SPREAD = 20, 6, 2.0


def ranked(taste_I: np.ndarray, noise: float, generator: np.random.Generator) -> list[int]:
    seen_I = taste_I + generator.normal(0, noise, NUM_ITEMS)
    return [int(item) for item in np.argsort(-seen_I)[:K]]


def clicked(
    items: tuple[int, ...] | list[int], taste_I: np.ndarray, generator: np.random.Generator
) -> set[int]:
    looked = 0.9 ** np.arange(len(items))
    return set(
        np.flatnonzero(generator.random(len(items)) < looked * 0.4 / (1 + np.exp(-2 * taste_I[list(items)])))
    )


def world(num_units: int, better_by: float, seed: int) -> tuple[float, float]:
    """P-values of the team draft and of a split over the same people, each list once."""
    generator = np.random.default_rng(seed)
    winners, clicks_U, arm_U = [], np.zeros(num_units), np.arange(num_units) % 2
    for n in range(num_units):
        taste_I = generator.normal(0, 1, NUM_ITEMS) + generator.normal(0, SPREAD)  # some people click more
        lists = ranked(taste_I, 1.5, generator), ranked(taste_I, 1.5 - better_by, generator)
        draft = team_draft(lists[0], lists[1], K, "s", f"{seed}-{n}")
        winners.append(winner(draft, clicked(draft.items, taste_I, generator)))
        clicks_U[n] = len(clicked(lists[arm_U[n]], taste_I, generator))
    member_UV = np.stack([arm_U == 0, arm_U == 1], axis=1).astype(float)
    split = difference(ratio_influence(UnitTotals(clicks_U[:, None] * member_UV, member_UV)), 0, 1)
    return verdict([f"u{n}" for n in range(num_units)], winners).p_value, split.p_value


def test_a_team_draft_finds_a_better_ranker_more_often_than_a_split_of_the_same_traffic() -> None:
    found = np.array([world(600, 1.2, seed) for seed in range(40)]) < 0.05
    draft, split = found.mean(axis=0)
    # .9 and .5 were seen: a split needs ((1.96 + 1.28) / 1.96)^2 = 2.7 times the lists for the same power
    assert draft > 0.75
    assert split < 0.7
    assert draft > split + 0.2


def test_a_team_draft_of_equal_rankers_finds_nothing() -> None:
    found = [world(150, 0.0, seed)[0] < 0.05 for seed in range(80)]
    # level 5% of 80: 4 expected, four standard deviations are 7.8
    assert sum(found) <= 11
