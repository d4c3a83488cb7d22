"""Rules that people write: what must not be shown, what alone may be, what is raised, and what stands where.

Blocks and filters are hard rules: they go into the search and stand again in the final filter, on every rung. Boosts and
pins are soft: `reranking` applies them.

Shape letters: I catalogue.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from tastemaker.config import Strict
from tastemaker.stages.matching import ItemMatcher, Match, When, holds
from tastemaker.types import Bool, Int32, Query

FEW_FORBIDDEN: Final = 1000
"""So many items are excluded by name; more by a mask over all rows."""
_HOUR_MS: Final = 3_600_000
_MASKS_KEPT: Final = 32


class Block(Strict):
    """Items that must not be shown."""

    kind: Literal["block"] = Field("block", description="block")
    match: Match = Field(description="which items")
    when: When | None = Field(None, description="for which requests; empty: all")


class Filter(Strict):
    """Items that alone may be shown."""

    kind: Literal["filter"] = Field("filter", description="filter")
    match: Match = Field(description="which items")
    when: When | None = Field(None, description="for which requests; empty: all")


class Boost(Strict):
    """Items whose relevance is raised or lowered."""

    kind: Literal["boost"] = Field("boost", description="boost")
    match: Match = Field(description="which items")
    amount: float = Field(
        ge=-1,
        le=1,
        description="added to relevance, which is 1 for the best candidate and 0 for the last of the head",
    )
    when: When | None = Field(None, description="for which requests; empty: all")


class Pin(Strict):
    """Items that stand at a place, whatever their relevance; those named by id also where no source proposed them."""

    kind: Literal["pin"] = Field("pin", description="pin")
    match: Match = Field(description="which items; the best-ranked of them, or in the order of `item_ids`")
    rank: int = Field(ge=1, le=500, description="place of the first, from 1")
    most: int = Field(1, ge=1, le=50, description="places in a row")
    when: When | None = Field(None, description="for which requests; empty: all")


Rule = Annotated[Block | Filter | Boost | Pin, Field(discriminator="kind")]
Hard = Block | Filter


def hard(rules: Iterable[Block | Filter | Boost | Pin]) -> tuple[Hard, ...]:
    """Those that no rung may skip."""
    return tuple(rule for rule in rules if isinstance(rule, Block | Filter))


class HardRules:
    """Blocks and filters over one moment of a catalogue. Thread-safe.

    Args:
        matcher: Gives that of the catalogue; asked for once there is a rule.
        rules: Of the bundle. Those of a query's policy come beside.
        of_policy: Gives the blocks and filters of a query's policy.
    """

    def __init__(
        self,
        matcher: Callable[[], ItemMatcher],
        rules: tuple[Hard, ...] = (),
        of_policy: Callable[[str], tuple[Hard, ...]] = lambda _: (),
    ) -> None:
        self._matcher, self._rules, self._of_policy = matcher, rules, of_policy
        self._masks = lru_cache(_MASKS_KEPT)(self._masked)

    def applied(self, query: Query) -> Query:
        """The query that forbids what the rules do: by name where that is little, else by mask. Ages go by the hour.

        Doing it once more changes nothing but the length of `exclude`.
        """
        if not (rules := self._of(query)):
            return query
        allowed_I, few = self._masks(rules, query.now_ms // _HOUR_MS * _HOUR_MS)
        if few is not None:
            return replace(query, exclude=np.concatenate([query.exclude, few]))
        if query.allowed is not None:
            num = min(len(query.allowed), len(allowed_I))
            allowed_I = allowed_I[:num] & query.allowed[:num]
        return replace(query, allowed=allowed_I)

    def against(self, query: Query, row: int) -> tuple[Hard, ...]:
        """Those that keep an item from a query."""
        now_ms = query.now_ms // _HOUR_MS * _HOUR_MS
        return tuple(rule for rule in self._of(query) if not self._masks((rule,), now_ms)[0][row])

    def _of(self, query: Query) -> tuple[Hard, ...]:
        rules = (*self._rules, *self._of_policy(query.policy)) if query.policy else self._rules
        return tuple(rule for rule in rules if holds(rule.when, query))

    def _masked(self, rules: tuple[Hard, ...], now_ms: int) -> tuple[Bool, Int32 | None]:
        """What may be shown (I,), and the rows of what may not where those are few."""
        matcher = self._matcher()
        allowed_I: Bool = np.ones(len(matcher.traits), bool)
        for rule in rules:
            found_I = matcher.everywhere(rule.match, now_ms)
            allowed_I &= found_I if isinstance(rule, Filter) else ~found_I
        forbidden = np.flatnonzero(~allowed_I).astype(np.int32)
        return allowed_I, forbidden if len(forbidden) <= FEW_FORBIDDEN else None
