"""The chance of each arm to be the best: closed forms and simulations."""

import numpy as np
import pytest
from draws import DRAWS, FOUR_DEVIATIONS, share_of_largest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from tastemaker.experiments.policies.quadrature import (
    largest_of_betas,
    largest_of_normals,
    largest_of_students,
)


def closed_form(a: tuple[int, int], b: tuple[int, int]) -> float:
    """P(B > A) for integer parameters [Miller 2015]: a finite sum."""
    i = np.arange(b[0])
    log_terms = (
        special.betaln(a[0] + i, a[1] + b[1])
        - np.log(b[1] + i)
        - special.betaln(1 + i, b[1])
        - special.betaln(a[0], a[1])
    )
    return float(np.exp(log_terms).sum())


@pytest.mark.parametrize(
    ("a", "b"),
    [((1, 1), (1, 1)), ((1, 2), (2, 1)), ((5, 95), (9, 91)), ((300, 2700), (330, 2670)), ((1, 1), (900, 100)),
     ((20_000, 180_000), (20_300, 179_700))],
)  # fmt: skip
def test_the_best_of_two_betas_equals_the_closed_form(a: tuple[int, int], b: tuple[int, int]) -> None:
    best = largest_of_betas([a[0], b[0]], [a[1], b[1]])
    assert best[1] == pytest.approx(closed_form(a, b), abs=1e-9)


def test_the_best_of_four_betas_equals_a_simulation() -> None:
    alpha, beta = [3, 10, 0.5, 40], [20, 60, 0.5, 300]
    draws = np.random.default_rng(0).beta(alpha, beta, (DRAWS, 4))
    assert largest_of_betas(alpha, beta) == pytest.approx(share_of_largest(draws), abs=FOUR_DEVIATIONS)


def test_the_best_of_four_normals_equals_a_simulation() -> None:
    mean, deviation = [0.0, 0.3, -1.0, 0.29], [1.0, 0.05, 3.0, 1e-3]
    draws = np.random.default_rng(0).normal(mean, deviation, (DRAWS, 4))
    assert largest_of_normals(mean, deviation) == pytest.approx(share_of_largest(draws), abs=FOUR_DEVIATIONS)


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(0.05, 3)), min_size=3, max_size=8),
)
@settings(deadline=None)
def test_the_two_ways_to_integrate_normals_agree(arms: list[tuple[float, float]]) -> None:
    mean, deviation = zip(*arms, strict=True)
    quick = largest_of_normals(mean, deviation)
    # with one more arm that is far below and so narrow that the trapezoidal rule would take too many points
    slow = largest_of_normals([*mean, -30.0], [*deviation, 1e-4])
    assert slow[-1] == pytest.approx(0, abs=1e-12)
    assert quick == pytest.approx(slow[:-1], abs=1e-8)


def test_the_best_of_two_normals_has_the_value_of_the_integral_for_more() -> None:
    two = largest_of_normals([1.0, 1.3], [0.2, 0.7])
    three = largest_of_normals([1.0, 1.3, -1e6], [0.2, 0.7, 1.0])
    assert three[:2] == pytest.approx(two, abs=1e-9)


def test_the_best_of_three_students_equals_a_simulation() -> None:
    freedom, location, scale = [2.0, 5.0, 400.0], [0.0, 0.5, 0.4], [1.0, 0.2, 0.01]
    draws = location + np.array(scale) * np.random.default_rng(0).standard_t(freedom, (DRAWS, 3))
    best = largest_of_students(freedom, location, scale)
    assert best == pytest.approx(share_of_largest(draws), abs=FOUR_DEVIATIONS)


def test_students_of_many_degrees_of_freedom_are_normals() -> None:
    students = largest_of_students([1e9, 1e9, 1e9], [0.0, 0.1, 0.2], [0.1, 0.2, 0.3])
    assert students == pytest.approx(largest_of_normals([0.0, 0.1, 0.2], [0.1, 0.2, 0.3]), abs=1e-7)


@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0, 200.0])
def test_the_better_of_two_cauchys_equals_the_closed_form(apart: float) -> None:
    # the difference of two standard Cauchys is Cauchy of scale 2
    best = largest_of_students([1.0, 1.0], [apart, 0.0], [1.0, 1.0])
    assert best[0] == pytest.approx(0.5 + np.arctan(apart / 2) / np.pi, abs=1e-6)
