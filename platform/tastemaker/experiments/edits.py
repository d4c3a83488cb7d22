"""What a change of an experiment does to the units that it has already assigned."""

from collections.abc import Iterator
from typing import Final

from tastemaker.experiments.allocation import Adaptive, AnyAllocation, Contextual, Fixed
from tastemaker.experiments.definition import Experiment

_WHO: Final = ("layer", "origin", "unit", "salt", "eligibility", "starts")
"""Fields that decide who takes part."""
_EXACT: Final = 1e-12


def reassigned(old: Experiment, new: Experiment, now_ms: int) -> tuple[str, ...]:
    """Why some units that `old` may have assigned by `now_ms` would get something else by `new`; empty where none would.

    More traffic, other metrics, guardrails, testers, an end, and how a bandit weighs rewards change nothing for a unit that
    has its variant: a bandit's unit keeps its draw until its epoch is over in any case.
    """
    if not old.has_started:
        return ()
    return (*_who(old, new, now_ms), *_what(old, new))


def _who(old: Experiment, new: Experiment, now_ms: int) -> Iterator[str]:
    for field in _WHO:
        if getattr(old, field) != getattr(new, field) and not _widens(field, old, new, now_ms):
            yield f"{field} decides who takes part"
    before, after = old.traffic_at(now_ms), new.traffic_at(now_ms)
    if after < before - _EXACT:
        yield f"traffic falls from {before:g} to {after:g}: units would leave"


def _widens(field: str, old: Experiment, new: Experiment, now_ms: int) -> bool:
    """Whether a change only lets more units in."""
    if field == "starts":
        return old.starts is not None and old.starts.timestamp() * 1000 > now_ms  # nobody is in yet
    return field == "eligibility" and new.eligibility is None


def _what(old: Experiment, new: Experiment) -> Iterator[str]:
    if old.variant_names != new.variant_names:
        yield f"variants become {', '.join(new.variant_names)}, were {', '.join(old.variant_names)}"
        return
    for one, other in zip(old.variants, new.variants, strict=True):
        if (one.alias, one.policy) != (other.alias, other.policy):
            yield f"variant {one.name} would be something else"
    before, after = old.allocation, new.allocation
    if before.kind != after.kind:
        yield f"allocation becomes {after.kind}, was {before.kind}"
    elif isinstance(before, Fixed) and isinstance(after, Fixed):
        moved = sum(abs(a - b) for a, b in zip(_edges(before), _edges(after), strict=True))
        if moved > _EXACT:
            yield f"weights become {_listed(after)}, were {_listed(before)}: units would change variant"
    elif _epoch_seconds(before) != _epoch_seconds(after):
        yield "epoch_seconds numbers the epochs: every unit would draw anew"
    if isinstance(before, Contextual) and isinstance(after, Contextual) and before.encoding != after.encoding:
        yield f"encoding becomes {after.encoding}, was {before.encoding}: nothing that was learned would count"


def _epoch_seconds(allocation: AnyAllocation) -> int | None:
    return allocation.epoch_seconds if isinstance(allocation, Adaptive) else None


def _edges(allocation: Fixed) -> tuple[float, ...]:
    weights = allocation.weights
    return tuple(sum(weights[:place]) for place in range(len(weights) + 1))


def _listed(allocation: Fixed) -> str:
    return " ".join(f"{weight:g}" for weight in allocation.weights)
