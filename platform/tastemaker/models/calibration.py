"""Turns the ranker's logits into probabilities: Platt scaling [Platt 1999], fitted on requests that the ranker did not see.

Shape letters: N candidates, T targets.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import DataError
from tastemaker.features.ranking_data import CLICK, Target
from tastemaker.strict import Strict
from tastemaker.types import Float32

_MAX_STEPS = 100


class Calibration(Strict):
    """p = 1 / (1 + exp(-(slope * logit + intercept))). The slope is positive: order never changes."""

    slope: float = Field(1.0, gt=0, description="scale of the logit")
    intercept: float = Field(0.0, description="added to the scaled logit")
    others: dict[Target, "Calibration"] = Field(
        default_factory=dict, description="of likes and purchases, where they are predicted beside the click"
    )

    def __call__(self, logit_N: Float32) -> Float32:
        """Probabilities (N,).

        >>> Calibration(slope=2.0, intercept=-2.0)(np.array([1.0], np.float32)).tolist()
        [0.5]
        """
        z_N = np.clip(self.slope * logit_N.astype(np.float64) + self.intercept, -60.0, 60.0)
        return (1.0 / (1.0 + np.exp(-z_N))).astype(np.float32)

    def of(self, target: Target) -> "Calibration":
        """That of one of the binary targets; probabilities of those without one are taken as the model gives them."""
        return self if target == CLICK else self.others.get(target, Calibration())

    @classmethod
    def fit_targets(cls, logit_NT: Float32, label_NT: Float32, targets: Sequence[Target]) -> Self:
        """The scalings of all binary targets, each fitted by `fit` on the candidates whose label is no NaN.

        Raises:
            DataError: See `fit`; names the target.
        """
        fitted: dict[Target, Calibration] = {}
        for column, target in enumerate(targets):
            known_N = ~np.isnan(label_NT[:, column])
            if target != "watch":
                fitted[target] = cls.fit(logit_NT[known_N, column], label_NT[known_N, column], target)
        click = fitted.pop(CLICK)
        return cls(slope=click.slope, intercept=click.intercept, others=fitted)

    @classmethod
    def fit(cls, logit_N: Float32, label_N: Float32, target: Target = CLICK) -> Self:
        """The scaling of least cross-entropy on N candidates, with Platt's smoothed targets, by Newton's method.

        Targets are (n1 + 1) / (n1 + 2) for the n1 positives and 1 / (n0 + 2) for the rest, so that a perfect ranker does
        not drive the slope to infinity. Where the logits are no better than chance (slope 0 or below) only the
        intercept is fitted, with a slope of 0.001: order is kept.

        Raises:
            DataError: There are no positives or no negatives, or a logit is not finite.
        """
        positive_N = np.asarray(label_N, np.bool_)
        num_positives = int(positive_N.sum())
        num_negatives = len(positive_N) - num_positives
        if not num_positives or not num_negatives or not np.isfinite(logit_N).all():
            raise DataError(
                f"calibration data of target {target}", value=f"{num_positives} positives, {num_negatives} negatives",
                limit="at least one of each, with finite logits", mend="hold out more requests",
            )  # fmt: skip
        target_N = np.where(positive_N, (num_positives + 1) / (num_positives + 2), 1 / (num_negatives + 2))
        mean, scale = float(logit_N.mean(dtype=np.float64)), float(logit_N.std(dtype=np.float64)) or 1.0
        x_N = (logit_N.astype(np.float64) - mean) / scale
        a, b = _newton(x_N, target_N)
        if a <= 0:
            slope, base = 1e-3, float(np.log(target_N.mean() / (1 - target_N.mean())))
            return cls(slope=slope, intercept=base - slope * mean)
        return cls(slope=a / scale, intercept=b - a * mean / scale)

    def config_dict(self) -> dict[str, Any]:
        """The scaling, JSON."""
        return self.model_dump(mode="json")

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> Self:  # noqa: ARG003
        """The scaling that `config_dict` describes; it has no tensors."""
        return cls.parse(config, "calibration")


def _newton(x_N: np.ndarray, target_N: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least cross-entropy; steps are halved until they do not make it worse."""
    X_N2 = np.stack([x_N, np.ones_like(x_N)], axis=1)
    theta = np.array([0.0, np.log(target_N.mean() / (1 - target_N.mean()))])
    loss = _cross_entropy(X_N2 @ theta, target_N)
    for _ in range(_MAX_STEPS):
        p_N = 1.0 / (1.0 + np.exp(-(X_N2 @ theta)))
        gradient = X_N2.T @ (p_N - target_N)
        hessian = (X_N2 * (p_N * (1 - p_N))[:, None]).T @ X_N2 + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while (new := _cross_entropy(X_N2 @ (theta - step), target_N)) > loss and np.abs(step).max() > 1e-10:
            step /= 2
        theta, gain, loss = theta - step, loss - new, new
        if gain < 1e-12 * len(x_N):
            break
    return float(theta[0]), float(theta[1])


def _cross_entropy(z_N: np.ndarray, target_N: np.ndarray) -> float:
    return float(np.sum(np.logaddexp(0.0, z_N) - target_N * z_N))
