"""Baselines and neighbours: values worked out by hand, and plain loops."""

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.models import zoo
from tastemaker.models.biases import Biases, mean_ratings
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.similarity import Similarity

DAY_MS = 86_400_000


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def log_of(*triples: tuple[int, int, float], days: tuple[float, ...] | None = None) -> Log:
    user_N, item_N, value_N = (np.array(column) for column in zip(*triples, strict=True))
    times = np.arange(len(triples)) if days is None else np.array(days) * DAY_MS
    return Log.of(
        user_N, item_N, num_users=int(user_N.max()) + 1, num_items=int(item_N.max()) + 1, value_N=value_N,
        timestamp_ms_N=times.astype(np.int64),
    )  # fmt: skip


NOBODY_ASKS = Askers.strangers([rows()])


def test_recent_counts_the_last_days_and_trending_by_half_lives():
    log = log_of((0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 1, 1), (1, 2, 1), days=(0, 0, 1, 9, 10))
    assert zoo.fit("popular", log).scores(NOBODY_ASKS)[0].tolist() == [3, 1, 1]
    recent = zoo.fit("recent", log, {"days": 2.0}).scores(NOBODY_ASKS)[0]
    assert recent[1] == recent[2] == pytest.approx(1 + 1 / 6)
    assert recent[0] == pytest.approx(3 / 6)  # nobody lately, more of all time: below any of the last days
    trending = zoo.fit("trending", log, {"half_life_days": 1.0}).scores(NOBODY_ASKS)[0]
    assert trending.tolist() == pytest.approx([2 * 2**-10 + 2**-9, 2**-1, 1])


def test_user_knn_adds_the_similarities_of_the_nearest_who_took_an_item():
    log = log_of((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 2, 1), (2, 1, 1), (2, 3, 1))
    model = zoo.fit("user-knn", log, {"num_neighbours": 2})
    # A stranger with items 0 and 1: user 0 has both, users 1 and 2 one each of their two.
    near = 1 / np.sqrt(2 * 2)
    score_I = zoo.fit("user-knn", log, {"num_neighbours": 9}).scores(Askers.strangers([rows(0, 1)]))[0]
    assert score_I.tolist() == pytest.approx([1 + near, 1 + near, near, near])
    # User 0 is no neighbour of their own.
    assert model.scores(Askers.known(log, rows(0)))[0].tolist() == pytest.approx([near, near, near, near])
    jaccard = zoo.fit("user-knn", log, {"num_neighbours": 9, "similarity": "jaccard", "shrinkage": 1.0})
    # 2 / (2 + 2 - 2 + 1) and 1 / (2 + 2 - 1 + 1)
    score_I = jaccard.scores(Askers.strangers([rows(0, 1)]))[0]
    assert score_I.tolist() == pytest.approx([2 / 3 + 1 / 4, 2 / 3 + 1 / 4, 1 / 4, 1 / 4])


def test_item_knn_of_targets_keeps_the_neighbours_of_what_is_scored():
    # Item 0 is next to all; items 1 and 2 are next to 0 alone.
    log = log_of((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 2, 1), (2, 0, 1), (2, 1, 1))
    of_target = zoo.fit("item-knn", log, {"num_neighbours": 1}).scores(Askers.strangers([rows(0)]))[0]
    of_history = zoo.fit("item-knn", log, {"num_neighbours": 1, "neighbours_of": "history"})
    # cosines with item 0, which 3 users have: 2 / sqrt(3 * 2), 1 / sqrt(3)
    assert of_target.tolist() == pytest.approx([0, 2 / 6**0.5, 1 / 3**0.5])
    assert of_history.scores(Askers.strangers([rows(0)]))[0].tolist() == pytest.approx([0, 2 / 6**0.5, 0])


def test_biases_shrink_to_the_mean():
    rating_UI = mean_ratings(rows(0, 1), rows(0, 0), np.array([5.0, 3.0], np.float32), (2, 1))
    found = Biases.fit(rating_UI, shrink_users=1.0, shrink_items=0.0)
    assert found.mean == 4
    assert found.item_I.tolist() == pytest.approx([0])  # both users are as far off, on either side
    assert found.user_U.tolist() == pytest.approx([0.5, -0.5])  # 1 / (1 + 1)


def test_several_ratings_of_one_item_are_their_mean_and_a_zero_is_one():
    found = mean_ratings(rows(0, 0, 1), rows(1, 1, 0), np.array([2, 4, 0], np.float32), (2, 2))
    assert found.nnz == 2
    assert found.toarray().tolist() == [[0, 3], [0, 0]]


@pytest.mark.parametrize("measure", ["msd", "cosine", "pearson", "pearson-baseline"])
def test_similarities_are_those_of_plain_loops(measure):
    draws = np.random.default_rng(3)
    rating_RM = draws.integers(1, 6, (9, 14)) * (draws.random((9, 14)) < 0.6)
    rows_RM = sp.csr_matrix(rating_RM.astype(np.float32))
    found = Similarity(rows_RM, measure, least_common=3, shrinkage=4.0).to(rows_RM[:5])
    for a in range(5):
        for b in range(9):
            both = (rating_RM[a] > 0) & (rating_RM[b] > 0)
            x, y = rating_RM[a, both].astype(float), rating_RM[b, both].astype(float)
            assert found[a, b] == pytest.approx(_alike(measure, x, y), abs=1e-5)


def _alike(measure: str, x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3:
        return 0.0
    if measure == "msd":
        return float(1 / (1 + np.mean((x - y) ** 2)))
    if measure == "pearson":
        x, y = x - x.mean(), y - y.mean()
    under = np.sqrt((x @ x) * (y @ y))
    cosine = float(x @ y / under) if under else 0.0
    return cosine * (len(x) - 1) / (len(x) - 1 + 4) if measure == "pearson-baseline" else cosine


@pytest.mark.parametrize("of", ["users", "items"])
@pytest.mark.parametrize("around", ["baseline", "mean"])
@pytest.mark.parametrize("measure", ["msd", "pearson-baseline"])
def test_rating_knn_guesses_as_plain_loops_do(of, around, measure):
    draws = np.random.default_rng(5)
    there = draws.random((12, 8)) < 0.6
    user_N, item_N = np.nonzero(there)
    value_N = draws.uniform(1, 5, len(user_N)).astype(np.float32)  # whole stars would tie
    log = Log.of(user_N, item_N, num_users=12, num_items=8, value_N=value_N)
    settings = {"of": of, "around": around, "similarity": measure, "num_neighbours": 3, "shrinkage": 2.0}
    found = zoo.fit("rating-knn", log, settings).scores(Askers.known(log))
    rating_UI = np.zeros((12, 8))
    rating_UI[user_N, item_N] = value_N
    assert np.abs(found - _guesses(rating_UI, there, of, around, measure)).max() < 1e-4


def _guesses(rating_UI: np.ndarray, there: np.ndarray, of: str, around: str, measure: str) -> np.ndarray:
    biases = Biases.fit(sp.csr_matrix(rating_UI), 15.0, 10.0)
    baseline_UI = biases.mean + biases.user_U[:, None] + biases.item_I
    compared_UI = rating_UI - baseline_UI if measure == "pearson-baseline" else rating_UI
    mean_axis = 1 if of == "users" else 0
    mean_UI = np.broadcast_to(
        (rating_UI.sum(mean_axis) / there.sum(mean_axis)).reshape((-1, 1) if of == "users" else (1, -1)),
        there.shape,
    )
    centre_UI = baseline_UI if around == "baseline" else mean_UI
    if of == "items":
        rating_UI, there, centre_UI, compared_UI = rating_UI.T, there.T, centre_UI.T, compared_UI.T
    guess = centre_UI.copy()
    for a in range(len(there)):
        for column in range(there.shape[1]):
            near = []
            for b in np.flatnonzero(there[:, column]):
                both = there[a] & there[b]
                # An item is among its own neighbours, a user is not.
                if (b != a or of == "items") and both.any():
                    x, y = compared_UI[a, both], compared_UI[b, both]
                    if measure == "msd":
                        alike = 1 / (1 + np.mean((x - y) ** 2))
                    else:
                        alike = x @ y / np.sqrt((x @ x) * (y @ y)) * (both.sum() - 1) / (both.sum() - 1 + 2)
                    near.append((alike, rating_UI[b, column] - centre_UI[b, column]))
            near = [(s, off) for s, off in sorted(near, key=lambda one: -one[0])[:3] if s > 0]
            if near:
                guess[a, column] += sum(s * off for s, off in near) / sum(s for s, _ in near)
    return guess.T if of == "items" else guess
