"""Intervals of clusters and diagnostics of weights: by hand, by their laws, and by how often they hold a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy import intervals
from tastemaker.offpolicy.intervals import interval, standard_error
from tastemaker.offpolicy.support import require_support, support_of, unsupported_mass
from tastemaker.offpolicy.terms import Terms


def weighted(seed: int, num_users: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards of mean .3 under a policy that one in six choices agrees with; users differ in what they earn."""
    luck = np.random.default_rng(seed)
    user_R = np.repeat(np.arange(num_users), luck.integers(1, 5, num_users))
    factor_R = luck.uniform(0.5, 1.5, num_users)[user_R]
    weight_R = 6.0 * (luck.random(len(user_R)) < 1 / 6)
    return weight_R, (luck.random(len(user_R)) < 0.3 * factor_R).astype(float), user_R


def test_error_of_a_ratio_by_hand() -> None:
    # Two users with 2 of 2 and 0 of 2: r = 1/2, residuals 1 and -1, variance 2/1 * (1 + 1) / 4^2 = 1/4.
    terms = Terms.ratio(np.array([2.0, 0.0]), np.array([2.0, 2.0]))
    assert standard_error(terms) == pytest.approx(0.5, abs=1e-12)


def test_error_of_a_sum_of_ratios_by_hand() -> None:
    # Means 2 and 20 of rows (1, 10) and (3, 30): influences are those of the mean 22 of 11 and 33, so the error is 11.
    both = Terms.mean(np.array([1.0, 3.0])).plus(Terms.mean(np.array([10.0, 30.0])))
    assert both.value == pytest.approx(22.0)
    assert standard_error(both) == pytest.approx(standard_error(Terms.mean(np.array([11.0, 33.0]))))


@pytest.mark.parametrize("normalised", [False, True])
def test_holds_the_truth_as_often_as_it_says(normalised: bool) -> None:
    # 95% of 300 intervals: the count has standard deviation 3.8, four of which are 5%.
    held = 0
    for seed in range(300):
        weight_R, reward_R, user_R = weighted(seed)
        terms = Terms.ratio(weight_R * reward_R, weight_R) if normalised else Terms.mean(weight_R * reward_R)
        found = interval(terms, user_R, seed=seed, num_draws=300)
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 300 <= 0.99


def test_the_transformed_interval_of_many_users_is_near_the_bootstrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Rewards of a skewed continuum: all users differ.
    luck = np.random.default_rng(4)
    value_R = 10.0 * (luck.random(1500) < 0.1) * luck.exponential(size=1500)
    terms = Terms.mean(value_R + 1e-9 * np.arange(1500))
    drawn = interval(terms, np.arange(1500), num_draws=4000)
    monkeypatch.setattr(intervals, "MOST_DISTINCT", 100)
    found = interval(terms, np.arange(1500))
    error = found.standard_error
    assert error == drawn.standard_error
    assert found.low == pytest.approx(drawn.low, abs=0.15 * error)
    assert found.high == pytest.approx(drawn.high, abs=0.15 * error)
    assert found.high - found.value > 1.05 * (found.value - found.low)


def test_equal_users_are_drawn_together_with_the_same_result() -> None:
    # 20 kinds of users, once written down as such and once told apart by a hair.
    value_R = np.repeat(np.random.default_rng(5).exponential(size=20), 15)
    together = interval(Terms.mean(value_R), np.arange(300), num_draws=4000)
    apart = interval(Terms.mean(value_R + 1e-12 * np.arange(300)), np.arange(300), num_draws=4000)
    assert together.low == pytest.approx(apart.low, abs=0.1 * apart.standard_error)
    assert together.high == pytest.approx(apart.high, abs=0.1 * apart.standard_error)


def test_rows_of_one_user_do_not_count_as_many() -> None:
    weight_R, reward_R, user_R = weighted(1)
    terms = Terms.mean(np.tile(weight_R * reward_R, 4))
    rows = interval(terms, np.arange(4 * len(user_R)))
    users = interval(terms, np.tile(user_R, 4))
    assert users.standard_error > 1.9 * rows.standard_error


@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-50, 50))
def test_intervals_move_with_the_values(seed: int, scale: float, shift: float) -> None:
    value_R, user_R = np.random.default_rng(seed).normal(size=40), np.arange(40) // 2
    one = interval(Terms.mean(value_R), user_R, num_draws=50)
    other = interval(Terms.mean(scale * value_R + shift), user_R, num_draws=50)
    assert one.low <= one.value <= one.high
    for a, b in ((one.low, other.low), (one.value, other.value), (one.high, other.high)):
        assert b == pytest.approx(scale * a + shift, rel=1e-6, abs=1e-6)


@given(st.integers(0, 1000), st.lists(st.integers(1, 5), min_size=2, max_size=8))
def test_clusters_in_parts_are_the_whole(seed: int, sizes: list[int]) -> None:
    luck = np.random.default_rng(seed)
    user_R = np.repeat(np.arange(len(sizes)), sizes)
    terms = Terms(luck.normal(size=(len(user_R), 2)), luck.uniform(1, 2, (len(user_R), 2)))
    assert terms.by_cluster(user_R).value == pytest.approx(terms.value, rel=1e-9)


def test_equal_users_have_no_width() -> None:
    found = interval(Terms.mean(np.ones(10)), np.arange(10))
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


def test_too_little_is_refused() -> None:
    with pytest.raises(ExperimentError, match="users with answers, is 1, must be at least 2"):
        interval(Terms.mean(np.ones(3)), np.zeros(3, np.int64))
    with pytest.raises(ExperimentError, match=r"level of an interval, is 1.5"):
        interval(Terms.mean(np.ones(3)), np.arange(3), level=1.5)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=30).filter(lambda w: sum(w) > 1e-6))
def test_effective_rows_lie_between_one_and_all(weights: list[float]) -> None:
    weight_R = np.array(weights)
    found = support_of(weight_R, np.arange(len(weights)))
    assert 1 - 1e-9 <= found.effective_rows <= found.num_used + 1e-9
    assert found.effective_rows <= 1 / found.largest_share**2 + 1e-6
    assert 0 <= found.supported <= 1


def test_a_mean_weight_near_one_is_support() -> None:
    weight_R, _, user_R = weighted(2, 1000)
    found = support_of(weight_R, user_R)
    assert found.mean_low < 1 < found.mean_high
    require_support(found)


def test_what_half_of_the_choices_never_try_is_refused() -> None:
    # Half of the rows could never agree with the policy: the mean weight is near 1/2.
    weight_R, _, user_R = weighted(3, 1000)
    weight_R[user_R % 2 == 0] = 0
    found = support_of(weight_R, user_R)
    assert found.supported < 0.7
    with pytest.raises(ExperimentError, match=r"of its mass, [34]\d\.\d% is on what was never tried"):
        require_support(found)


def test_few_effective_rows_are_refused() -> None:
    weight_R = np.where(np.arange(10_000) < 50, 200.0, 0.0)
    found = support_of(weight_R, np.arange(10_000))
    with pytest.raises(
        ExperimentError, match=r"those of equal weight among 10,000, is 50.0, must be at least 100"
    ):
        require_support(found)


def test_mass_without_support_by_hand() -> None:
    policy = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    logged = np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    # .5 of the first row, .2 of the second.
    assert unsupported_mass(policy, logged) == pytest.approx(0.35)
