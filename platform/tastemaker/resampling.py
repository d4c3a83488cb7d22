"""Intervals of means by drawing users again and again. Not which means: see `evaluation` and `models.transfer.monitor`.

Shape letters: U users, M columns, R rounds.
"""

from collections.abc import Sequence

import numpy as np

from tastemaker.types import Float64

_ROUNDS_AT_ONCE = 50


def bootstrap(
    values_UM: Float64, seed: int | Sequence[int] = 0, rounds: int = 1000, level: float = 0.95
) -> tuple[Float64, Float64]:
    """Bounds, (M,) each, of the percentile interval of the columns' means, users drawn with replacement [Efron 1979].

    One column's values must be of the users in one order: the same draws serve all columns. A user whose value is NaN does not
    count in that column, nor does a round in which no other was drawn; a column without values has NaN for bounds.

    >>> low, high = bootstrap(np.array([[0.5, 1.0], [0.5, 1.0], [0.5, np.nan]]))
    >>> low.tolist(), high.tolist()
    ([0.5, 1.0], [0.5, 1.0])
    """
    num_users, is_measured_M = len(values_UM), ~np.isnan(values_UM).all(axis=0)
    draws = np.random.default_rng(seed)
    share = np.full(num_users, 1 / num_users)
    there_UM = ~np.isnan(values_UM)
    filled_UM = np.where(there_UM, values_UM, 0.0)
    means = []
    for start in range(0, rounds, _ROUNDS_AT_ONCE):
        drawn_RU = draws.multinomial(num_users, share, size=min(_ROUNDS_AT_ONCE, rounds - start))
        count_RM = num_users if there_UM.all() else drawn_RU @ there_UM
        with np.errstate(invalid="ignore"):
            means.append(drawn_RU @ filled_UM / count_RM)
    bounds_2M = np.full((2, values_UM.shape[1]), np.nan)
    bounds_2M[:, is_measured_M] = np.nanquantile(
        np.concatenate(means)[:, is_measured_M], [(1 - level) / 2, (1 + level) / 2], axis=0
    )
    return bounds_2M[0], bounds_2M[1]
