"""The gate that judges the version from what was logged: what its lists would have earned, by the log's propensities."""

from typing import Final

from tastemaker.errors import BundleError, DataError, ExperimentError
from tastemaker.offpolicy.judging import Span, judge_bundle
from tastemaker.promotion.gate import Case, GateResult, Outcome

NAME: Final = "off-policy"
_WINDOW_MS: Final = 1_800_000
DEPTHS: Final = (None, 5, 3, 1)
"""Slots that are judged: all, or as many first ones as the log supports."""


def off_policy(case: Case) -> GateResult:
    """Passes where even the lower bound loses no more than tolerated, refuses where even the upper bound loses more.

    Between the two the log does not tell, as where it has no support for the version's lists: not applicable.
    """
    span = Span.days(case.limits.off_policy_days, case.now_ms, _WINDOW_MS, case.limits.origin)
    try:
        found = judge_bundle(
            case.settings,
            case.home,
            span,
            bundle=case.candidate,
            depths=DEPTHS,
            name=f"version {case.number}",
            check=False,
        )
    except (ExperimentError, DataError, BundleError) as error:
        return GateResult(name=NAME, outcome="not applicable", reason=str(error))
    best = found.headline
    change, limit = best.difference, -case.limits.off_policy_loss * found.logged.value
    numbers = {
        "low": change.low,
        "high": change.high,
        "logged": found.logged.value,
        "value": best.value.value,
        "lists": float(found.rows),
        "effective_lists": found.support.effective_rows,
    }
    said = (
        f"{found.measured} {change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}] against the "
        f"{found.logged.value:.4f} of {found.rows} logged lists, by {best.estimator}"
    )
    outcome: Outcome = "passed" if change.low >= limit else "refused"
    if change.low < limit <= change.high:
        outcome, said = "not applicable", f"the log does not tell: {said}"
    return GateResult(name=NAME, outcome=outcome, value=change.low, limit=limit, reason=said, numbers=numbers)
