"""The gate that looks at what the version answered as the shadow: whether it answers, in time, and nothing outlandish.

Agreement says how different it is, not how good; the gate refuses one that fails, or shares next to nothing with what is shown.
"""

from dataclasses import asdict
from typing import Final

from tastemaker.errors import DataError, ExperimentError
from tastemaker.experiments.shadow import ShadowReport, shadow_report
from tastemaker.promotion.gate import Case, GateResult

NAME: Final = "shadow"
_HOUR_MS: Final = 3_600_000


def shadow(case: Case) -> GateResult:
    """Few of its answers failed, 99 of 100 came in time, and the overlap with what was shown may be what is asked for."""
    limits = case.limits
    since_ms = case.now_ms - round(limits.shadow_hours * _HOUR_MS)
    try:
        found = shadow_report(
            case.home, case.settings.catalogue, since_ms, case.now_ms, limits.origin, case.candidate.bundle_id
        )
    except (ExperimentError, DataError) as error:
        return GateResult(name=NAME, outcome="not applicable", reason=str(error))
    numbers = {name: float(value) for name, value in asdict(found).items() if isinstance(value, int | float)}
    num_asked = round(found.mirrored * found.num_shown)
    if num_asked < limits.shadow_pairs:
        why = f"it was asked {num_asked} times as the shadow, fewer than {limits.shadow_pairs}"
        return GateResult(name=NAME, outcome="not applicable", reason=why, numbers=numbers)
    value, limit, reason = _worst(case, found)
    refused = reason is not None
    return GateResult(
        name=NAME,
        outcome="refused" if refused else "passed",
        value=value,
        limit=limit,
        reason=reason
        or f"{found.num_pairs} answers, overlap {_share(found.overlap)}, {found.failed:.1%} failed",
        numbers=numbers,
    )


def _worst(case: Case, found: ShadowReport) -> tuple[float | None, float, str | None]:
    """The figure that decides with its bound; why it refuses."""
    limits, deadline = case.limits, case.settings.gateway.deadline_ms
    if found.failed > limits.shadow_failed:
        return found.failed, limits.shadow_failed, f"{found.failed:.1%} of its answers failed"
    late_ms = found.shadow_all_p99_ms
    if late_ms is not None and late_ms > deadline:
        shown = f"{found.shown_p99_ms:.0f} ms of what was shown" if found.shown_p99_ms is not None else "none"
        return late_ms, deadline, f"99 of 100 take {late_ms:.0f} ms, beside {shown}"
    high = found.overlap_high if found.overlap_high is not None else found.overlap
    if high is not None and high < limits.shadow_overlap:
        return found.overlap, limits.shadow_overlap, f"it shares {_share(found.overlap)} of the shown items"
    return found.overlap, limits.shadow_overlap, None


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
