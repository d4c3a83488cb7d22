"""Models of a choice's expected reward, which the direct method and doubly robust estimates read.

They are linear in the features of context and choice: logistic for rewards of 0 and 1, ridge for others. Each row's
expectation comes from a model that was fitted on other clusters' rows alone (cross-fitting, [Chernozhukov et al. 2018]).

Shape letters: R rows, A actions, X context features, Y action features, F folds.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from scipy import linalg, optimize, special

from tastemaker.errors import ExperimentError
from tastemaker.types import Bool, Float64, Int64

NUM_FOLDS: Final = 3
_MOST_ITERATIONS: Final = 1000

Predict = Callable[[Float64], Float64]


def expected_rewards(
    context_RX: Float64,
    action_R: Int64,
    reward_R: Float64,
    action_AY: Float64,
    cluster_R: Int64,
    *,
    num_folds: int = NUM_FOLDS,
    penalty: float = 1.0,
    seed: int = 0,
) -> Float64:
    """The expected reward of every action in each row's context, (R, A).

    Args:
        context_RX: Features of the context; there may be none (X = 0).
        action_R: What was chosen.
        reward_R: What came of it. All of 0 and 1: the model is logistic.
        action_AY: Features of each action, such as one-hot rows.
        cluster_R: Rows of one cluster are in one fold.
        num_folds: Parts, each of which the others foretell; at least 2.
        penalty: Of the squared weights; the intercept is free.
        seed: Deals clusters to folds.

    Raises:
        ExperimentError: There are fewer clusters than folds.
    """
    clusters, code_R = np.unique(cluster_R, return_inverse=True)
    if len(clusters) < num_folds:
        raise ExperimentError(
            "users to fit a reward model on", value=len(clusters), limit=f"at least {num_folds}", mend="wait for traffic"
        )  # fmt: skip
    order = np.random.default_rng([seed, 1]).permutation(len(clusters))
    fold_R = (order % num_folds)[code_R]
    fit = logistic if np.isin(reward_R, (0.0, 1.0)).all() else ridge
    expected_RA = np.empty((len(action_R), len(action_AY)))
    feature_RZ = np.hstack([context_RX, action_AY[action_R]])
    for fold in range(num_folds):
        held_R: Bool = fold_R == fold
        predict = fit(feature_RZ[~held_R], reward_R[~held_R], penalty)
        for action, column_R in _by_action(context_RX[held_R], action_AY):
            expected_RA[held_R, action] = predict(column_R)
    return expected_RA


def _by_action(context_RX: Float64, action_AY: Float64) -> Iterator[tuple[int, Float64]]:
    for action, features_Y in enumerate(action_AY):
        yield action, np.hstack([context_RX, np.broadcast_to(features_Y, (len(context_RX), len(features_Y)))])


def ridge(feature_RZ: Float64, reward_R: Float64, penalty: float) -> Predict:
    """Least squares of centred features and rewards with a penalty on the squared weights [Hoerl & Kennard 1970].

    By hand: features -1 and 1, rewards 0 and 2, penalty 2: weight (1 + 1) / (2 + 2) = 1/2 about the mean 1.

    >>> ridge(np.array([[-1.0], [1.0]]), np.array([0.0, 2.0]), 2.0)(np.array([[1.0]])).tolist()
    [1.5]
    """
    mean_Z, mean = feature_RZ.mean(axis=0), float(reward_R.mean())
    centred_RZ = feature_RZ - mean_Z
    gram_ZZ = centred_RZ.T @ centred_RZ + penalty * np.eye(feature_RZ.shape[1])
    weight_Z = linalg.solve(gram_ZZ, centred_RZ.T @ (reward_R - mean), assume_a="pos")

    def predict(feature_RZ: Float64) -> Float64:
        predicted_R: Float64 = mean + (feature_RZ - mean_Z) @ weight_Z
        return predicted_R

    return predict


def logistic(feature_RZ: Float64, reward_R: Float64, penalty: float) -> Predict:
    """Logistic regression: the least sum of log-losses + penalty / 2 |weights|^2, by L-BFGS.

    Without features, and as the penalty grows, it foretells the share of ones.

    >>> logistic(np.zeros((4, 1)), np.array([1.0, 0, 0, 0]), 1.0)(np.zeros((1, 1))).round(4).tolist()
    [0.25]
    """
    num = feature_RZ.shape[1]

    def loss(weight: Float64) -> tuple[float, Float64]:
        logit_R = feature_RZ @ weight[:num] + weight[num]
        left_R = special.expit(logit_R) - reward_R
        value = (
            np.logaddexp(0, logit_R).sum() - reward_R @ logit_R + penalty / 2 * weight[:num] @ weight[:num]
        )
        slope = np.append(left_R @ feature_RZ + penalty * weight[:num], left_R.sum())
        return float(value), slope

    share = np.clip(reward_R.mean(), 1e-6, 1 - 1e-6)
    start = np.append(np.zeros(num), special.logit(share))
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS, "gtol": 1e-5}
    ).x

    def predict(feature_RZ: Float64) -> Float64:
        predicted_R: Float64 = special.expit(feature_RZ @ found[:num] + found[num])
        return predicted_R

    return predict
