"""What a bundle must pass before an alias may name it. Not for the online verdict, which experiments give."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import BundleError, GateRefusedError, UsageError
from tastemaker.index.measuring import borders, recall
from tastemaker.registry.client import Registry, Version, check_alias
from tastemaker.types import Float64

Outcome = Literal["passed", "refused", "not applicable"]

METRIC = "ndcg@10"
TOLERATED_LOSS = 0.01
"""Share of the champion's mean that a version may lose for certain."""
MIN_USERS = 30
RECALL_AT = 10
MIN_RECALL = {"flat": 1.0, "hnsw": 0.9, "ivf-flat": 0.9, "ivf-pq": 0.9}
_SAMPLE = 100
_ROUNDS = 1000
_ROUNDS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate said: the figure it looked at, the bound, and why."""

    name: str
    outcome: Outcome
    value: float | None = None
    limit: float | None = None
    reason: str = ""


def promote(
    registry: Registry,
    store: BundleStore,
    catalogue: str,
    number: int,
    alias: str,
    *,
    actor: str,
    reason: str,
    force: bool = False,
) -> list[GateResult]:
    """Points an alias at a version that the gates let through; their answers stay as tags on the version.

    Args:
        registry: Where the version is.
        store: Where its bundle lies.
        catalogue: Whose it is.
        number: The version.
        alias: champion, challenger, shadow or another.
        actor: Who promotes.
        reason: Why; kept in the history.
        force: Promote against the gates. A bundle that cannot be read whole is refused all the same.

    Raises:
        GateRefusedError: A gate said no; the alias stays where it was.
        UsageError: Force without a reason, or no proper alias.
    """
    check_alias(alias)
    if force and not reason.strip():
        raise UsageError("a forced promotion needs a reason", mend="say why with --reason")
    version = registry.version(catalogue, number)
    results = _gates(registry, store, catalogue, version)
    registry.tag(catalogue, number, {f"tastemaker.gate.{r.name}": json.dumps(asdict(r)) for r in results})
    refused = [result for result in results if result.outcome == "refused"]
    unreadable = any(result.name == "integrity" for result in refused)
    if refused and (unreadable or not force):
        why = "; ".join(f"{result.name}: {result.reason}" for result in refused)
        mend = "publish the bundle again" if unreadable else "correct it, or force it with a reason"
        raise GateRefusedError(f"version {number} was refused ({why})", mend=mend)
    registry.set_alias(catalogue, alias, number, actor, reason, forced=bool(refused))
    return results


def _gates(registry: Registry, store: BundleStore, catalogue: str, version: Version) -> list[GateResult]:
    try:
        candidate = Bundle.open(store, version.ref)
    except BundleError as error:
        return [GateResult("integrity", "refused", reason=str(error))]
    live = registry.aliases(catalogue).get("champion")
    try:
        return run_gates(candidate, Bundle.open(store, live.ref) if live else None)
    except BundleError as error:  # a champion that is lost must not keep its successor out
        lost = GateResult("offline", "not applicable", reason=f"the champion cannot be read: {error}")
        return [*run_gates(candidate, None)[:-1], lost]


def run_gates(candidate: Bundle, champion: Bundle | None) -> list[GateResult]:
    """What every gate says of a bundle, `champion` being what it is measured against."""
    return [_integrity(candidate), _contents(candidate), _index(candidate), _offline(candidate, champion)]


def _integrity(candidate: Bundle) -> GateResult:
    """Every file is there, unchanged, and belongs to the others."""
    try:
        candidate.verify()
    except BundleError as error:
        return GateResult("integrity", "refused", reason=str(error))
    return GateResult("integrity", "passed", reason=f"{len(candidate.manifest.files)} files")


def _contents(candidate: Bundle) -> GateResult:
    """Every file can be parsed, all learned numbers are finite, item ids are distinct."""
    try:
        faults = [fault for name in candidate.manifest.files if (fault := _fault(candidate, name))]
    except BundleError as error:
        faults = [str(error)]
    outcome: Outcome = "refused" if faults else "passed"
    return GateResult("contents", outcome, float(len(faults)), 0.0, "; ".join(faults[:3]) or "all finite")


def _fault(bundle: Bundle, name: str) -> str | None:
    if name.endswith(".json"):
        bundle.json(name)
    elif name.endswith(".parquet"):
        bundle.table(name)
        if name == "items.parquet" and len(set(bundle.item_ids)) < len(bundle.item_ids):
            return f"{name} names an item twice"
    elif name.endswith(".safetensors"):
        bad = [key for key, value in bundle.tensors(name).items() if not np.isfinite(value).all()]
        return f"{name}: {bad[0]} is not finite" if bad else None
    elif bundle.manifest.files[name].index and not np.isfinite(bundle.index(name).vectors()).all():
        return f"{name} holds vectors that are not finite"
    return None


def _index(candidate: Bundle) -> GateResult:
    """The index finds what scoring every item finds, for a sample of the items' own vectors."""
    name = "index.faiss"
    info = candidate.manifest.files[name].index if candidate.has(name) else None
    if info is None:
        return GateResult("index", "not applicable", reason="the bundle has no index")
    try:
        index = candidate.index(name)
    except BundleError as error:
        return GateResult("index", "refused", reason=str(error))
    limit = MIN_RECALL.get(info.kind, 1.0)
    vectors = index.vectors()
    sample = np.random.default_rng(0).choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False)
    k = min(RECALL_AT, len(vectors))
    found, _ = index.search(vectors[sample], k)
    value = recall(found, vectors[sample], vectors, borders(vectors[sample], vectors, k))
    reason = f"{info.kind}, {len(sample)} queries at {k}"
    return GateResult("index", "passed" if value >= limit else "refused", value, limit, reason)


def _offline(candidate: Bundle, champion: Bundle | None) -> GateResult:
    """Refused where the 95% interval of the paired difference lies wholly below the tolerated loss.

    A pass is no proof of being better, nor of being as good: with few users the interval is wide.
    """
    name = "offline"
    if champion is None or champion.bundle_id == candidate.bundle_id:
        return GateResult(name, "not applicable", reason="there is no other champion to compare with")
    if champion.manifest.dataset.fingerprint != candidate.manifest.dataset.fingerprint:
        return GateResult(name, "not applicable", reason="the champion was evaluated on other data")
    pair = _paired(candidate, champion)
    if pair is None or len(pair[0]) < MIN_USERS:
        return GateResult(
            name, "not applicable", reason=f"fewer than {MIN_USERS} users with {METRIC} in both"
        )
    mean, low, high = paired_difference(*pair)
    limit = -TOLERATED_LOSS * float(pair[1].mean())
    reason = f"{METRIC} {mean:+.4f} [{low:+.4f}, {high:+.4f}] over {len(pair[0])} users against the champion"
    return GateResult(name, "refused" if high < limit else "passed", mean, limit, reason)


def _paired(candidate: Bundle, champion: Bundle) -> tuple[Float64, Float64] | None:
    """The metric of the users that both bundles were evaluated on, in one order."""
    name = "user_metrics.parquet"
    if not all(
        bundle.has(name) and METRIC in bundle.table(name).column_names for bundle in (candidate, champion)
    ):
        return None
    ours, theirs = (bundle.table(name).select(["user_id", METRIC]) for bundle in (candidate, champion))
    both: pa.Table = ours.join(theirs, "user_id", join_type="inner", right_suffix=" of champion").sort_by(
        "user_id"
    )
    a, b = (both.column(key).to_numpy().astype(np.float64) for key in (METRIC, f"{METRIC} of champion"))
    return a, b


def paired_difference(a_U: Float64, b_U: Float64) -> tuple[float, float, float]:
    """Mean of a - b over users, and its 95% percentile bootstrap interval [Efron 1979] over the users.

    >>> paired_difference(np.array([0.5, 0.5]), np.array([0.25, 0.25]))
    (0.25, 0.25, 0.25)
    """
    rng, difference_U = np.random.default_rng(0), a_U - b_U
    drawn = (
        rng.integers(0, len(a_U), (_ROUNDS_AT_ONCE, len(a_U))) for _ in range(_ROUNDS // _ROUNDS_AT_ONCE)
    )
    means = np.concatenate([difference_U[rows].mean(axis=1) for rows in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference_U.mean()), float(low), float(high)
