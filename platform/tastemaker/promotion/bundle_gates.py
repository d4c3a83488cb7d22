"""Gates that look at the bundle alone: is it whole, can it be parsed, does its index find what it must."""

from typing import Final

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.errors import BundleError
from tastemaker.index.measuring import borders, recall
from tastemaker.promotion.gate import Case, GateResult, passed_if

INTEGRITY: Final = "integrity"
EXACT: Final = "flat"
"""Kind of an index that leaves nothing out."""
_RECALL_AT: Final = 10
_SAMPLE: Final = 100


def integrity(case: Case) -> GateResult:
    """Every file is there, unchanged, and belongs to the others."""
    try:
        case.candidate.verify()
    except BundleError as error:
        return unreadable(error)
    return GateResult(name=INTEGRITY, outcome="passed", reason=f"{len(case.candidate.manifest.files)} files")


def unreadable(error: BundleError) -> GateResult:
    """The answer for a bundle that cannot be read whole."""
    return GateResult(name=INTEGRITY, outcome="refused", reason=str(error))


def contents(case: Case) -> GateResult:
    """Every file can be parsed, all learned numbers are finite, item ids are distinct."""
    bundle = case.candidate
    try:
        faults = [fault for name in bundle.manifest.files if (fault := _fault(bundle, name))]
    except BundleError as error:
        faults = [str(error)]
    return GateResult(
        name="contents",
        outcome=passed_if(not faults),
        value=float(len(faults)),
        limit=0.0,
        reason="; ".join(faults[:3]) or "all finite",
    )


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


def index(case: Case) -> GateResult:
    """The index finds what scoring every item finds, for a sample of the items' own vectors: recall at 10."""
    name, bundle = "index.faiss", case.candidate
    info = bundle.manifest.files[name].index if bundle.has(name) else None
    if info is None:
        return GateResult(name="index", outcome="not applicable", reason="the bundle has no index")
    try:
        found_in = bundle.index(name)
    except BundleError as error:
        return GateResult(name="index", outcome="refused", reason=str(error))
    limit, vectors_ID = 1.0 if info.kind == EXACT else case.limits.recall, found_in.vectors()
    sample = np.random.default_rng(0).choice(len(vectors_ID), min(_SAMPLE, len(vectors_ID)), replace=False)
    k = min(_RECALL_AT, len(vectors_ID))
    found, _ = found_in.search(vectors_ID[sample], k)
    value = float(recall(found, vectors_ID[sample], vectors_ID, borders(vectors_ID[sample], vectors_ID, k)))
    return GateResult(
        name="index",
        outcome=passed_if(value >= limit),
        value=value,
        limit=limit,
        reason=f"{info.kind}, {len(sample)} queries at {k}",
    )
