"""The gate that tries a version on recorded requests, one at a time in this process, beside the champion on the same ones.

The machine of whoever promotes is not the one that serves: the champion's times beside are what tells.
"""

from time import perf_counter
from typing import Final

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.errors import StateError, TastemakerError
from tastemaker.promotion.gate import Case, GateResult, passed_if
from tastemaker.stages.recorded import Recorded, read_recorded
from tastemaker.types import Float64

FEWEST: Final = 5
"""Recorded requests below which nothing is measured."""
PERCENT: Final = 95
FAST_MS: Final = 10.0
"""Whoever answers within that need not be compared with the champion."""
_ROUNDS: Final = 5
_WARM_UP: Final = 3


def latency(case: Case) -> GateResult:
    """95 of 100 recorded requests are answered in time, and not in many times what the champion takes."""
    name = "latency"
    recorded = _recorded(case)
    if isinstance(recorded, str):
        return GateResult(name=name, outcome="not applicable", reason=recorded)
    try:
        ours, theirs = _measure(recorded, case.candidate, case.champion)
    except TastemakerError as error:
        return GateResult(name=name, outcome="refused", reason=f"it cannot answer: {error}")
    value, deadline = _percentile(ours), case.limits.latency_ms or case.settings.gateway.deadline_ms
    limit, beside = deadline, ""
    numbers = {"requests": float(len(recorded)), "p50_ms": float(np.median(ours))}
    if theirs is not None:
        numbers["champion"] = champion = _percentile(theirs)
        limit = min(deadline, max(FAST_MS, case.limits.latency_ratio * champion))
        beside = f"; the champion takes {champion:.1f} ms"
    return GateResult(
        name=name,
        outcome=passed_if(value <= limit),
        value=value,
        limit=limit,
        reason=f"{PERCENT} of 100 of {len(recorded)} recorded requests within {value:.1f} ms{beside}",
        numbers=numbers,
    )


def _recorded(case: Case) -> list[Recorded] | str:
    """What gateways took in the last hour; why there is none."""
    try:
        with case.state() as (client, keys):
            found = read_recorded(client, keys)
    except StateError as error:
        return f"no recorded request can be read: {error}"
    if len(found) < FEWEST:
        return f"fewer than {FEWEST} requests were recorded in the last hour"
    return found


def _measure(
    recorded: list[Recorded], candidate: Bundle, champion: Bundle | None
) -> tuple[Float64, Float64 | None]:
    """Milliseconds of each request by both, the median of several rounds; taken in turns, so that both meet the same machine."""
    from tastemaker.stages.pipeline import Pipeline

    bundles = [candidate, *([champion] if champion else [])]
    pipelines = [Pipeline.from_bundle(bundle) for bundle in bundles]
    asked = [[one.query(bundle.index_of) for one in recorded] for bundle in bundles]
    for pipeline, queries in zip(pipelines, asked, strict=True):
        for query in queries[:_WARM_UP]:
            pipeline.recommend([query])
    took = np.empty((len(bundles), len(recorded), _ROUNDS))
    for round_ in range(_ROUNDS):
        for number in range(len(recorded)):
            for which, pipeline in enumerate(pipelines):
                begun = perf_counter()
                pipeline.recommend([asked[which][number]])
                took[which, number, round_] = (perf_counter() - begun) * 1000
    ours, *theirs = np.median(took, axis=2)
    return ours, theirs[0] if theirs else None


def _percentile(ms: Float64) -> float:
    return float(np.percentile(ms, PERCENT))
