"""The logged probability of each choice is that with which it happens."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.stages.rerankers.luck import (
    SamplingConfig,
    ShuffleConfig,
    drawn,
    mixed,
    plackett_luce,
    shuffle_propensity,
)
from tastemaker.types import Query

SCORES = np.array([0.8, 0.5, 0.4, 0.2], np.float32)
LIVE = Query(np.empty(0, np.int32), explore=True)


def test_plackett_luce_by_hand() -> None:
    # odds 4, 1, 2/3: 4 of 17/3, then 1 of 5/3, then all
    logit = np.log([0.8 / 0.2, 1.0, 0.4 / 0.6])
    assert plackett_luce(logit).tolist() == pytest.approx([12 / 17, 3 / 5, 1])


def test_a_mixture_learns_from_the_choices_before() -> None:
    """Usual [1, 1], sampled [.5, .2], share .1: .9 + .05 = .95, then (.9 + .01) / .95; never less than the usual's part."""
    assert mixed(np.array([1.0, 1.0]), np.array([0.5, 0.2]), 0.1).tolist() == pytest.approx(
        [0.95, 0.91 / 0.95]
    )


@pytest.mark.parametrize(
    ("shuffle", "sampling"),
    [
        (ShuffleConfig(window=2), None),
        (None, SamplingConfig(share=0.4)),
        (ShuffleConfig(window=3), SamplingConfig(share=0.3, temperature=2.0)),
    ],
)
def test_lists_come_as_often_as_their_propensities_say(
    shuffle: ShuffleConfig | None, sampling: SamplingConfig | None
) -> None:
    num = 8000
    seen: Counter[tuple[int, ...]] = Counter()
    chance: dict[tuple[int, ...], float] = {}
    for seed in range(num):
        order, propensity = drawn(replace(LIVE, seed=seed), SCORES, 1, shuffle, sampling)
        key = tuple(order.tolist())
        seen[key] += 1
        chance[key] = float(np.prod(propensity))
    assert sum(chance.values()) == pytest.approx(
        1, abs=0.02
    )  # lists that are hardly ever drawn may be missing
    for key, count in seen.items():
        expected = num * chance[key]
        assert count == pytest.approx(expected, abs=5 * expected**0.5 + 1), key


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 5), st.integers(2, 7), st.integers(0, 2**60))
def test_a_shuffle_stays_within_its_windows(num: int, keep_top: int, window: int, seed: int) -> None:
    config = ShuffleConfig(window=window, head=20)
    order, propensity = drawn(
        replace(LIVE, seed=seed), np.linspace(1, 0, num, dtype=np.float32), keep_top, config, None
    )
    assert sorted(order.tolist()) == list(range(num))
    stays = (np.arange(num) < keep_top) | (np.arange(num) >= 20)
    assert (order[stays] == np.arange(num)[stays]).all()
    assert (np.abs(order - np.arange(num)) < window).all()
    assert (propensity > 0).all()
    assert shuffle_propensity(order, keep_top, config).tolist() == propensity.tolist()


def test_the_share_of_sampled_requests_is_the_configured_one() -> None:
    config = SamplingConfig(
        share=0.1, temperature=50.0
    )  # nearly even: a sampled list of 8 is hardly ever the usual one
    scores = np.linspace(0.9, 0.1, 8, dtype=np.float32)
    other = sum(
        drawn(replace(LIVE, seed=seed), scores, 3, None, config)[0].tolist() != list(range(8))
        for seed in range(4000)
    )
    assert other == pytest.approx(400, abs=4 * (4000 * 0.1 * 0.9) ** 0.5)
