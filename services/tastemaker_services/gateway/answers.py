"""What an answer says of itself: the items of its body, and its decision record.

Shape letters: K candidates, S sources, L history.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.decision_log import Decision
from tastemaker.stages.because import NOTHING
from tastemaker.stages.overlay import FRESH, PINNED
from tastemaker.types import Candidates, Float32, Int32, Origin, Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.users import User

NOT_PERSONAL = "popular now, not personalised"
FITS, LIKE, FITS_TEXT = "fits the history", "like the item", "fits the words"
POPULAR = "popular now"
FOR_NEW = "for somebody new"
"""Of what personal sources propose where nothing of a history is known: by what the user is, or what people like in general."""
_ANYBODYS: Final = {"popular", "trending"}
_NAMED: Final = {"editorial": "picked by editors", "nearby": "near you"}
"""Reasons of sources that speak for themselves, where only they and what is popular propose an item."""


def items_of(
    face: BundleFace,
    slate: Candidates,
    reason: str,
    *,
    explain: bool = False,
    is_personal: bool = True,
    fits: str = FITS,
) -> list[dict[str, Any]]:
    """The answer's items; `reason` is that of those that no source proposed, where the list `is_personal` at all.

    `fits` is that of those that personal sources proposed: `fits_of` the query.
    """
    scores = np.nan_to_num(slate.score).tolist()
    items = []
    for place, (row, mask) in enumerate(
        zip(slate.item_index.tolist(), slate.source_mask.tolist(), strict=True)
    ):
        sources = face.sources_of(mask)
        item = {
            "item_id": face.item_ids[row],
            "score": scores[place],
            "rank": place + 1,
            "sources": sources,
            "reason": (_reason(sources, fits) if sources else reason) if is_personal else NOT_PERSONAL,
            "because": None,
        }
        if is_personal and slate.because is not None and slate.because[place] != NOTHING:
            item |= _because(item["reason"], face.item_ids[slate.because[place]])
        if explain:
            given = zip(face.source_names, slate.source_score_KS[place].tolist(), strict=True)
            item["source_scores"] = {name: score for name, score in given if np.isfinite(score)}
        items.append(item)
    return items


def _because(reason: str, item_id: str) -> dict[str, str]:
    """The reason that names an item of the history; what is popular or new is so without one."""
    return {"reason": "like what was taken", "because": item_id} if reason == FITS else {}


def fits_of(query: Query, user: User | None) -> str:
    """The reason of what personal sources propose; where a history is there, but nothing of it is known here, they were told of none.

    Args:
        query: What they were told.
        user: None where nothing could be read.
    """
    if len(query.history_L):
        return FITS
    return FOR_NEW if user is not None and user.is_new else POPULAR


def _reason(sources: Sequence[str], fits: str) -> str:
    if PINNED in sources:
        return "pinned"
    if list(sources) == [FRESH]:
        return "new here"
    telling = {*sources} - _ANYBODYS
    if not telling:
        return POPULAR
    return _NAMED.get(next(iter(telling)), fits) if len(telling) == 1 else fits


def newest_once(rows_L: Int32) -> Int32:
    """Each row at its newest place, oldest first."""
    newest_first = dict.fromkeys(rows_L[::-1].tolist())
    return np.array(list(newest_first)[::-1], np.int32)


def unsourced(found: tuple[Int32, Float32], num_sources: int) -> Candidates:
    """Rows with scores as candidates that no source of the pipeline proposed."""
    rows_K, score_K = found
    unknown_KS = np.full((len(rows_K), num_sources), np.nan, np.float32)
    return Candidates(rows_K, score_K, np.zeros(len(rows_K), np.uint32), unknown_KS)


def _rules_hash(face: BundleFace, query: Query) -> str:
    """Names the eligible set: the bundle's items under the request's hard rules."""
    digest = hashlib.sha256(face.sha256.encode())
    digest.update(np.sort(np.concatenate([query.history_L, query.exclude])).astype("<i4").tobytes())
    digest.update(b"" if query.allowed is None else np.packbits(query.allowed).tobytes())
    return digest.hexdigest()[:16]


def keeps_features(request_id: str, share: float) -> bool:
    """Whether the decision log keeps the features of an answer: by hash, a stated share of all.

    >>> [keeps_features("a", 0.0), keeps_features("a", 1.0)]
    [False, True]
    """
    return zlib.crc32(request_id.encode()) < share * 2**32


def _features(face: BundleFace, slate: Candidates) -> dict[str, Any]:
    """The features of a slate that has them, row by row, with their names."""
    if slate.features_KF is None or not len(slate):
        return {}
    return {"feature_names": face.feature_names, "features": slate.features_KF.ravel().tolist()}


def _propensities(slate: Candidates) -> dict[str, Any]:
    """The probability of each slot's item given those above it, where reranking worked it out."""
    if slate.propensity is None or not len(slate):
        return {}
    return {"slot_propensity": slate.propensity.tolist(), "slot_propensity_kind": "exact"}


def decision_of(
    *,
    request_id: str,
    timestamp_ms: int,
    catalogue: str,
    origin: Origin,
    face: BundleFace,
    query: Query,
    slate: Candidates,
    assigned: Assigned,
    rungs: Sequence[str],
    cached_from: str | None,
    timings_ms: Mapping[str, float],
    **more: Any,
) -> Decision:
    """The record of one answer, with `more` of its fields. A degraded answer counts for its variant as well: it is what the user got."""
    fields: dict[str, Any] = {
        "bundle": face.bundle_id,
        "unit": query.user_id,
        "item_ids": [face.item_ids[row] for row in slate.item_index.tolist()],
        "scores": np.nan_to_num(slate.score).tolist(),
        "source_masks": slate.source_mask.tolist(),
        "slot_team": () if slate.team is None else slate.team.tolist(),
        "catalogue_epoch": f"{face.overlay.lineage}:{face.overlay.epoch}" if face.overlay.lineage else "",
        **_propensities(slate),
        **_features(face, slate),
    }
    fields |= _experiments(query.user_id, assigned)
    return Decision(
        decision_id=request_id,
        request_id=request_id,
        timestamp_ms=timestamp_ms,
        catalogue=catalogue,
        origin=origin,
        user_id=query.user_id,
        eligible_hash=_rules_hash(face, query),
        seed=query.seed,
        k=query.k,
        policy=query.policy,
        rungs=tuple(rungs),
        cached_from=cached_from,
        context=query.context,
        timings_ms=timings_ms,
        **fields | more,
    )


def _experiments(user_id: str, assigned: Assigned) -> dict[str, Any]:
    """What the record says of experiments."""
    found: dict[str, Any] = {
        "assignments": [one.logged() for one in assigned.assignments],
        "forced_variants": [f"{one.experiment}={one.variant}" for one in assigned.forced],
        "held_out": assigned.held_out,
    }
    assignment = assigned.first
    if assignment is None:
        return found
    return found | {
        "unit": assignment.unit or user_id,
        "experiment": assignment.experiment,
        "variant": assignment.variant,
        "epoch": assignment.epoch,
        "propensity": assignment.propensity,
        "propensities": assignment.propensities,
        "policy_version": assignment.policy_version,
        "policy_hash": assignment.policy_hash,
    }
