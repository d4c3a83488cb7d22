"""Runs a plan of clicks: fits click models, measures their probabilities, compares them. Not the page of it (`click_page`).

Shape letters: N rows, G groups.
"""

import time
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from tastemaker.evaluation import metrics, predictions
from tastemaker.evaluation.click_plan import LEARNED_BY, ClickModelChoice, ClickPlan, GivenPropensity
from tastemaker.evaluation.click_rows import click_parts
from tastemaker.evaluation.comparing import differences
from tastemaker.evaluation.counterfactual import inverse_propensities
from tastemaker.evaluation.offline import paired_bootstrap
from tastemaker.models.ctr import kinds
from tastemaker.models.ctr.model import Labelled
from tastemaker.types import Float32, Float64, Int64

CLICK_METRICS: Final = ("logloss", LEARNED_BY, "normalised_entropy", "ece", "auc", "gauc")
"""In the order in which they are read; what does not hold of a plan is missing."""
_NUM_BINS = 15
_LEAST = 1e-15


def compare_clicks(plan: ClickPlan) -> dict[str, Any]:
    """All that the plan asks for, as JSON values.

    Raises:
        DataError: See `click_parts`, or there is nothing that a model could learn from.
        ConfigError: A model's config names a field that there is not.
        MissingExtraError: A kind needs a package that is not installed.
    """
    parts = click_parts(plan)
    tested, systems, each, curves = parts.tested, [], {}, {}
    for name, choice in plan.models.items():
        began = time.monotonic()
        model = kinds.fit(choice.kind, parts.learned, settings(choice, plan.propensity), parts.validation)
        fitted = time.monotonic()
        chance_N = model.predict(tested.rows)
        took = time.monotonic() - fitted
        each[name] = per_group(chance_N, tested, plan.propensity)
        systems.append(
            {"system": name, "kind": choice.kind, "fit_seconds": fitted - began, "evaluation_seconds": took}
            | _overall(chance_N, tested)
            | _with_bounds(each[name], plan.seed)
        )
        curves[name] = reliability(chance_N, tested.label_N)
    tests = differences(each, plan.against, plan.compared, plan.correction, plan.seed)
    return {
        "kind": "clicks",
        "rows": {
            part: None if one is None else {"num_rows": len(one), "click_rate": float(one.label_N.mean())}
            for part, one in (("learned", parts.learned), ("validation", parts.validation), ("tested", tested))
        },
        "held_out": "the newest" if plan.time is not None else "drawn",
        "baseline": plan.against,
        "correction": plan.correction,
        "systems": systems,
        "differences": [asdict(one) for one in tests],
        "calibration": curves,
        "notes": [f"{parts.num_unreadable} rows with other numbers of cells were left out"] if parts.num_unreadable else [],
    }  # fmt: skip


def settings(choice: ClickModelChoice, propensity: GivenPropensity | None) -> dict[str, Any]:
    """A model's config; what propensities are of is the plan's to say, where a network's own `fit.propensity` does not.

    >>> settings(ClickModelChoice(kind="fm"), GivenPropensity(column="seen", of="rows"))
    {'fit': {'propensity': {'of': 'rows', 'least': 0.01}}}
    """
    config = dict(choice.config)
    if propensity is None or "fit" not in kinds.click_model_class(choice.kind).Config.model_fields:
        return config
    fit = dict(config.get("fit", {}))
    of_plan = {"of": propensity.of, "least": propensity.least}
    return {**config, "fit": {**fit, "propensity": of_plan | dict(fit.get("propensity", {}))}}


def per_group(
    chance_N: Float32, tested: Labelled, propensity: GivenPropensity | None = None
) -> dict[str, Float64]:
    """By metric a value (G,) for each group, whose mean is the metric over all rows; rows without groups are one each.

    A group weighs as many as it has rows, over the mean of that. `gauc` is NaN where a group has labels of one kind alone.

    Raises:
        DataError: A propensity is none.
    """
    group_N = tested.rows.group_N
    loss_N = _losses(chance_N, tested.label_N)
    codes_N = np.arange(len(tested)) if group_N is None else np.unique(group_N, return_inverse=True)[1]
    found = {"logloss": _shares(loss_N, codes_N)}
    if propensity is not None:
        found[LEARNED_BY] = _unbiased(chance_N, tested, codes_N, propensity)
    if group_N is not None:
        found["gauc"] = _aucs(chance_N, tested.label_N, codes_N)
    return found


def reliability(chance_N: Float32, label_N: Float32) -> list[dict[str, float]]:
    """Rows in bins of like size by ascending probability, as the calibration error has them: mean probability and share of clicks.

    >>> reliability(np.array([0.25, 0.25, 0.75], np.float32), np.array([0, 1, 1], np.float32))
    [{'predicted': 0.25, 'observed': 0.5, 'num_rows': 2}, {'predicted': 0.75, 'observed': 1.0, 'num_rows': 1}]
    """
    order_N = np.sort(chance_N)
    bin_N = np.searchsorted(order_N, chance_N) * _NUM_BINS // max(len(order_N), 1)
    found = []
    for one in np.unique(bin_N):
        inside_N = bin_N == one
        found.append(
            {
                "predicted": float(chance_N[inside_N].mean(dtype=np.float64)),
                "observed": float(label_N[inside_N].mean(dtype=np.float64)),
                "num_rows": int(inside_N.sum()),
            }
        )
    return found


def _overall(chance_N: Float32, tested: Labelled) -> dict[str, float | None]:
    label_N = tested.label_N.astype(np.float64)
    found = {
        "auc": predictions.auc(chance_N, label_N),
        "normalised_entropy": predictions.normalised_entropy(chance_N, label_N),
        "ece": metrics.expected_calibration_error(chance_N, tested.label_N, _NUM_BINS),
    }
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _with_bounds(each: dict[str, Float64], seed: int) -> dict[str, float]:
    """Means over groups and their 95% bootstrap intervals."""
    found: dict[str, float] = {}
    for name, value_G in each.items():
        known_G = value_G[~np.isnan(value_G)]
        if len(known_G):
            mean, low, high = paired_bootstrap(known_G, np.zeros(len(known_G)), seed)
            found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return found


def _losses(chance_N: Float32, label_N: Float32) -> Float64:
    p_N = np.clip(chance_N.astype(np.float64), _LEAST, 1 - _LEAST)
    loss_N: Float64 = -np.where(label_N > 0, np.log(p_N), np.log1p(-p_N))
    return loss_N


def _unbiased(chance_N: Float32, tested: Labelled, codes_N: Int64, propensity: GivenPropensity) -> Float64:
    """Log loss of the chance to be relevant [Saito et al. 2020, Eq. 10], or of all rows by those that are there [Schnabel et al. 2016]."""
    assert tested.propensity_N is not None, "a plan with propensities has a column of them"
    weight_N = inverse_propensities(tested.propensity_N.astype(np.float64), propensity.least)
    if propensity.of == "rows":
        return _shares(_losses(chance_N, tested.label_N) * weight_N / weight_N.mean(), codes_N)
    yes_N, no_N = (_losses(chance_N, np.full(len(tested), one, np.float32)) for one in (1, 0))
    stands_N = tested.label_N * weight_N
    return _shares(stands_N * yes_N + (1 - stands_N) * no_N, codes_N)


def _shares(value_N: Float64, codes_N: Int64) -> Float64:
    """(G,) sums of rows' values, times groups over rows, so that their mean is that of all rows."""
    total_G = np.bincount(codes_N, value_N)
    found: Float64 = total_G * len(total_G) / len(value_N)
    return found


def _aucs(chance_N: Float32, label_N: Float32, codes_N: Int64) -> Float64:
    """(G,) AUC of each group, times its rows over the mean rows of groups that have one: their mean is `predictions.gauc`."""
    order_N = np.argsort(codes_N, kind="stable")
    parts = np.split(order_N, np.flatnonzero(np.diff(codes_N[order_N])) + 1)
    labels = label_N.astype(np.float64)
    auc_G = np.array([predictions.auc(chance_N[part], labels[part]) for part in parts])
    size_G = np.array([len(part) for part in parts], np.float64)
    known_G = ~np.isnan(auc_G)
    return auc_G * size_G / size_G[known_G].mean() if known_G.any() else auc_G
