"""How likely each judged item was to stand in its slot of the logged list, whatever stood above it.

That needs what each list was drawn from, made again by the bundle that showed it (`recomputing`). Whether it was made again
rightly is known: the logged probabilities of the list's own slots must come out of it.

Shape letters: S lists, K slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.logged_lists import LoggedLists
from tastemaker.offpolicy.marginals import conditional, marginal, possible
from tastemaker.stages.exploring import ExplorationConfig, explores, unexplored_chance
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.rerankers.luck import Draw
from tastemaker.types import Bool, Float64, Int32, Query

TOLERANCE: Final = 1e-3
"""Relative difference between a slot's logged probability and the one made again; the log rounds to 24 bits."""
_NOTHING: Final = np.empty(0, np.int32)
_UNEXPLORED: Final = ExplorationConfig(share=0.0)
"""Of all traffic but the live one."""
_NO_ROW: Final = -1


class Indexed(Protocol):
    """What knows the rows that a draw names items by: a `Bundle`."""

    def index_of(self, item_id: str) -> int | None:
        """The item's row; None where there is none."""


@dataclass(frozen=True, slots=True)
class SlotChances:
    """Of judged lists: how likely the logged list was to have the judged item in each slot, where it has it (1 elsewhere), and whether it could."""

    marginal_SK: Float64
    possible_SK: Bool


def with_known_draws(
    logged: LoggedLists, draws: Sequence[Draw | None], bundles: Mapping[str, Bundle]
) -> tuple[LoggedLists, Bool]:
    """The lists whose draw is known, and the mask of them (S,); the others are left out for a reason.

    Lists that show an explored item are left out: seeds choose them, apart from the order's luck.

    Raises:
        ExperimentError: None is known.
    """
    configs = {name: _exploration(bundle) for name, bundle in bundles.items()}
    rows = logged.decisions.select(["bundle", "seed", "origin"]).to_pylist()
    there_S, ordered_S, same_S = (np.zeros(len(logged), bool) for _ in range(3))
    for s, (draw, row) in enumerate(zip(draws, rows, strict=True)):
        if draw is None:
            continue
        name, exploration = row["bundle"], configs[row["bundle"]]
        if row["origin"] != "live":
            exploration = _UNEXPLORED
        there_S[s] = True
        ordered_S[s] = not explores(Query(_NOTHING, seed=row["seed"] or 0, explore=True), exploration)
        same_S[s] = _comes_out(draw, logged, s, bundles[name], exploration)
    kept = logged
    left_S = np.ones(len(logged), bool)
    for reason, stays_S in (
        ("are of bundles that are gone", there_S),
        ("show an explored item", ordered_S),
        ("have probabilities that do not come out again", same_S),
    ):
        kept, left_S = kept.take(stays_S[left_S], reason), left_S & stays_S
    if not len(kept):
        raise ExperimentError(
            "logged lists whose draw comes out again", value=0, limit="at least 1",
            mend="name newer days, or take another --belief, which does not ask for it",
        )  # fmt: skip
    return kept, left_S


def slot_chances(
    logged: LoggedLists,
    judged: Sequence[Sequence[str]],
    draws: Sequence[Draw],
    bundles: Mapping[str, Indexed],
) -> SlotChances:
    """The chances of the judged lists' slots.

    Args:
        logged: See `with_known_draws`.
        judged: The policy's list for each of them.
        draws: What each logged list was drawn from.
        bundles: That made them, by the name that decisions have.
    """
    marginal_SK, possible_SK = np.ones(logged.filled_SK.shape), np.zeros(logged.filled_SK.shape, bool)
    names = [name or "" for name in logged.decisions["bundle"].to_pylist()]
    for s, (draw, wanted, name) in enumerate(zip(draws, judged, names, strict=True)):
        shown = logged.items[s]
        rows_K = _rows(bundles[name], wanted[: len(shown)])
        possible_SK[s, : len(rows_K)] = possible(draw, rows_K)
        agree = np.array([k for k in range(len(rows_K)) if wanted[k] == shown[k]], np.int64)
        if len(agree):
            marginal_SK[s, agree] = marginal(draw, rows_K[agree], agree)
    return SlotChances(marginal_SK, possible_SK)


def _comes_out(
    draw: Draw, logged: LoggedLists, s: int, bundle: Bundle, exploration: ExplorationConfig
) -> bool:
    num = len(logged.items[s])
    again_K = conditional(draw, _rows(bundle, logged.items[s])) * unexplored_chance(exploration, num)
    return bool(np.allclose(again_K, logged.propensity_SK[s, :num], rtol=TOLERANCE, atol=0))


def _exploration(bundle: Bundle) -> ExplorationConfig:
    return PipelineConfig.parse(bundle.json("pipeline.json"), "pipeline.json").exploration


def _rows(bundle: Indexed, items: Sequence[str]) -> Int32:
    rows = [bundle.index_of(item) for item in items]
    return np.array([_NO_ROW if row is None else row for row in rows], np.int32)
