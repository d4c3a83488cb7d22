"""What all experiments together make of one request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Self

from tastemaker.experiments.assignment import Assignment
from tastemaker.registry.live import CHAMPION

DEFAULT_LAYER: Final = "default"


@dataclass(frozen=True, slots=True)
class Assigned:
    """A request's assignments, one a layer at most; the default layer's first, then by layer.

    `forced` are those that a tester asked for: they stand in for all others, and count in no experiment. A user who is
    `held_out` is in none.
    """

    assignments: tuple[Assignment, ...] = ()
    forced: tuple[Assignment, ...] = ()
    held_out: bool = False

    @property
    def in_effect(self) -> tuple[Assignment, ...]:
        """What the request gets."""
        return self.forced or self.assignments

    @property
    def first(self) -> Assignment | None:
        """The default layer's assignment, or that of the one layer that there is; None where there is neither."""
        return _first(self.assignments)

    @property
    def shown(self) -> Assignment | None:
        """The same of what is in effect."""
        return _first(self.in_effect)

    @property
    def interleaved(self) -> Assignment | None:
        """The assignment that gets both variants' picks; one layer at most has one. A tester's variant is one alone."""
        return next((one for one in self.in_effect if one.teams), None)

    def of_team(self, team: int) -> Self:
        """What would be in effect if the interleaving gave that variant alone."""
        return self._with_interleaved(lambda one: (one.teams[team],))

    def without_interleaving(self) -> Self:
        """What is left where no list of both variants' picks is made: the answer is outside of that experiment."""
        return self._with_interleaved(lambda _: ())

    def _with_interleaved(self, instead: Callable[[Assignment], tuple[Assignment, ...]]) -> Self:
        found = (instead(one) if one.teams else (one,) for one in self.assignments)
        return replace(self, assignments=tuple(chain.from_iterable(found)))

    @property
    def alias(self) -> str | None:
        """Of the bundle that is to answer, where that is not the champion: one layer at most says so."""
        return next((one.alias for one in self.in_effect if one.alias != CHAMPION), None)

    def without(self, alias: str) -> Self:
        """What is left where the bundle of `alias` does not answer: those assignments are outside their experiments."""
        left = tuple(one for one in self.assignments if one.alias != alias)
        return replace(self, assignments=left, forced=tuple(one for one in self.forced if one.alias != alias))

    def kept(self) -> dict[str, Any]:
        """Its fields, for JSON or MessagePack; without policies."""
        return {
            "assignments": [one.kept() for one in self.assignments],
            "forced": [one.kept() for one in self.forced],
            "held_out": self.held_out,
        }

    @classmethod
    def of_kept(cls, fields: Mapping[str, Any]) -> Self:
        """What `kept` gave."""
        assignments, forced = (
            tuple(Assignment.of_kept(one) for one in fields[name]) for name in ("assignments", "forced")
        )
        return cls(assignments, forced, fields["held_out"])


def _first(assignments: tuple[Assignment, ...]) -> Assignment | None:
    if len(assignments) == 1:
        return assignments[0]
    return next((one for one in assignments if one.layer == DEFAULT_LAYER), None)
