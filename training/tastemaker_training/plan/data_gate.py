"""Whether new data may be trained on: it is compared, by profiles, with what the champion learned from.

Whole data is compared with whole data: what is small beside the log that has grown up to now passes here, and is for
the promotion gates and experiments to catch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.special import chdtri

from tastemaker.strict import Strict
from tastemaker.terminal import print_table
from tastemaker_training.plan.data_profile import DataProfile

_HOUR_MS = 3_600_000
_LEAST_SHARE = 1e-4
"""What a bin that one side lacks counts as: PSI would be endless."""
_CHANCE = 0.01
HISTOGRAMS = ("kinds", "values", "hours", "popularity", "histories")


class DataGateConfig(Strict):
    """How much data may differ from the champion's. Rises are in points of a share, 0.1 for ten of a hundred."""

    min_ratio: float = Field(
        0.5, gt=0, le=1, description="fewest rows, users and items, as times the champion's"
    )
    max_ratio: float = Field(5.0, ge=1, description="most rows, users and items, as times the champion's")
    max_new_users: float = Field(0.6, ge=0, le=1, description="share of users that the champion has not seen")
    max_new_items: float = Field(0.5, ge=0, le=1, description="share of items that the champion has not seen")
    max_missing_rise: float = Field(
        0.1, ge=0, le=1, description="rise of any column's share of missing values"
    )
    max_invalid_rise: float = Field(0.05, ge=0, le=1, description="rise of the share of refused rows")
    max_duplicate_rise: float = Field(0.05, ge=0, le=1, description="rise of the share of repeated events")
    max_step_back_hours: float = Field(24.0, ge=0, description="newest event before the champion's newest")
    max_age_hours: float | None = Field(None, gt=0, description="age of the newest event; empty: any age")
    max_gap_hours: float | None = Field(
        None, gt=0, description="longest time without events, or the champion's if longer; empty: any"
    )
    max_psi: float = Field(0.25, gt=0, description="population stability index of a distribution")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One figure with its bound. Shares, ratios and PSI have no unit; times are in hours."""

    name: str
    value: float
    limit: float
    passed: bool
    reason: str


def check(new: DataProfile, old: DataProfile, config: DataGateConfig, now_ms: int) -> list[CheckResult]:
    """What the gate says of `new` beside `old`, the champion's. A profile passes beside itself.

    Args:
        new: What would be trained on.
        old: What the champion was trained on.
        config: The bounds.
        now_ms: Ages count from here.
    """
    return [
        *_volume(new, old, config),
        *_ids(new, old, config),
        *_quality(new, old, config),
        *_times(new, old, config, now_ms),
        *(_drift(name, getattr(new, name), getattr(old, name), config) for name in HISTOGRAMS),
    ]


def refusals(results: Sequence[CheckResult]) -> str:
    """The figures of the checks that refuse, in one line; empty where all pass."""
    refused = (result for result in results if not result.passed)
    return "; ".join(f"{r.name} {r.value:.4g}, must be within {r.limit:.4g}" for r in refused)


def print_checks(results: Sequence[CheckResult]) -> None:
    """All figures as a table."""
    outcome = {True: "passed", False: "refused"}
    rows = [(r.name, f"{r.value:.4g}", f"{r.limit:.4g}", outcome[r.passed], r.reason) for r in results]
    print_table("Data gate", ["check", "value", "limit", "outcome", "reason"], rows)


def psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Population stability index: sum of (a - e) ln(a / e) over the bins' shares [Siddiqi 2006].

    Bins that both lack count for nothing. By hand: 0.25 ln 1.5 - 0.25 ln 0.5.

    >>> round(psi([50, 50], [75, 25]), 4)
    0.2747
    """
    counts = np.array([expected, actual], np.float64)
    counts = counts[:, counts.any(axis=0)]
    e, a = np.maximum(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), _LEAST_SHARE)
    return float(((a - e) * np.log(a / e)).sum())


def psi_by_chance(expected: Sequence[int], actual: Sequence[int]) -> float:
    """What PSI exceeds once in a hundred times where both are samples of one distribution.

    The chi-square quantile of (bins - 1) degrees, times 1/n + 1/m [Yurdakul & Naranjo 2020].

    >>> round(psi_by_chance([50, 50], [75, 25]), 4)  # 6.6349 * (1/100 + 1/100)
    0.1327
    """
    counts = np.array([expected, actual])
    degrees = int(counts.any(axis=0).sum()) - 1
    return float(chdtri(degrees, _CHANCE) * (1 / np.maximum(counts.sum(axis=1), 1)).sum()) if degrees else 0.0


def _volume(new: DataProfile, old: DataProfile, config: DataGateConfig) -> list[CheckResult]:
    sizes = {
        "rows": (new.num_rows, old.num_rows),
        "users": (new.users.num_ids, old.users.num_ids),
        "items": (new.items.num_ids, old.items.num_ids),
    }
    results = []
    for name, (mine, theirs) in sizes.items():
        ratio = mine / theirs
        limit = config.min_ratio if ratio < 1 else config.max_ratio
        passed = config.min_ratio <= ratio <= config.max_ratio
        results.append(CheckResult(name, ratio, limit, passed, f"{mine:,}, the champion had {theirs:,}"))
    return results


def _ids(new: DataProfile, old: DataProfile, config: DataGateConfig) -> list[CheckResult]:
    shares = {
        "new_users": (new.users.share_outside(old.users), config.max_new_users),
        "new_items": (new.items.share_outside(old.items), config.max_new_items),
    }
    return [
        CheckResult(
            name, share, limit, share <= limit, f"share of {name.removeprefix('new_')} unknown before"
        )
        for name, (share, limit) in shares.items()
    ]


def _quality(new: DataProfile, old: DataProfile, config: DataGateConfig) -> list[CheckResult]:
    worst = max(new.missing, key=lambda name: new.missing[name] - old.missing.get(name, 0.0))
    shares = {
        "missing": (new.missing[worst], old.missing.get(worst, 0.0), config.max_missing_rise),
        "invalid": (_invalid_share(new), _invalid_share(old), config.max_invalid_rise),
        "duplicates": (
            new.num_duplicates / new.num_rows, old.num_duplicates / old.num_rows, config.max_duplicate_rise,
        ),
    }  # fmt: skip
    of = {"missing": f"of {worst}", "invalid": "of refused rows", "duplicates": "of repeated events"}
    return [
        CheckResult(
            name,
            mine - theirs,
            limit,
            mine - theirs <= limit,
            f"share {of[name]} {mine:.3f}, was {theirs:.3f}",
        )
        for name, (mine, theirs, limit) in shares.items()
    ]


def _invalid_share(one: DataProfile) -> float:
    return one.num_invalid / (one.num_rows + one.num_invalid)


def _times(new: DataProfile, old: DataProfile, config: DataGateConfig, now_ms: int) -> list[CheckResult]:
    back, age = (old.last_ms - new.last_ms) / _HOUR_MS, (now_ms - new.last_ms) / _HOUR_MS
    gap, usual = new.largest_gap_ms / _HOUR_MS, old.largest_gap_ms / _HOUR_MS
    back_limit, age_limit = config.max_step_back_hours, config.max_age_hours
    results = [
        CheckResult(
            "step_back", back, back_limit, back <= back_limit, "hours from newest event to champion's"
        )
    ]
    if age_limit is not None:
        results.append(CheckResult("age", age, age_limit, age <= age_limit, "hours since the newest event"))
    if config.max_gap_hours is not None:
        limit = max(config.max_gap_hours, usual)
        results.append(CheckResult("gap", gap, limit, gap <= limit, "longest hours without events"))
    return results


def _drift(name: str, new: Sequence[int], old: Sequence[int], config: DataGateConfig) -> CheckResult:
    value, chance = psi(old, new), psi_by_chance(old, new)
    limit = max(config.max_psi, chance)
    reason = "PSI" if limit > chance else "PSI; the bound is what chance alone gives"
    return CheckResult(f"psi_{name}", value, limit, value <= limit, reason)
