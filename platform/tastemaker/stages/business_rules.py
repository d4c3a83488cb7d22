"""Rules that people write: what must not be shown, what alone may be, what is raised, and what stands where.

Blocks and filters are hard rules: they go into the search and stand again in the final filter, on every rung. Boosts and
pins are soft: `reranking` applies them.

Shape letters: I catalogue.
"""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from tastemaker.stages.kept_masks import KeptMasks, Mask
from tastemaker.stages.matching import ItemMatcher, Match, When, holds
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int32, Query

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
        self._masks: KeptMasks[tuple[tuple[Hard, ...], int]] = KeptMasks(_MASKS_KEPT)

    def after(self, matcher: Callable[[], ItemMatcher], rows_W: Int32, num: int) -> "HardRules":
        """The rules after a step of the catalogue that wrote `rows_W`, of `num` rows in all, which `matcher` knows."""
        changed = copy(self)
        changed._matcher = matcher
        changed._masks = self._masks.after(rows_W, num, lambda key: _allowed(matcher(), *key, rows_W))
        return changed

    def applied(self, query: Query) -> Query:
        """The query that forbids what the rules do: by name where that is little, else by mask. Ages go by the hour.

        Doing it once more changes nothing but the length of `exclude`.
        """
        if not (rules := self._of(query)):
            return query
        mask = self._mask(rules, query)
        if mask.few_forbidden is not None:
            return replace(query, exclude=np.concatenate([query.exclude, mask.few_forbidden]))
        allowed_I = mask.allowed_I
        if query.allowed is not None:
            num = min(len(query.allowed), len(allowed_I))
            allowed_I = allowed_I[:num] & query.allowed[:num]
        return replace(query, allowed=allowed_I)

    def against(self, query: Query, row: int) -> tuple[Hard, ...]:
        """Those that keep an item from a query."""
        matcher, now_ms = self._matcher(), _hour(query)
        rows = np.array([row], np.int32)
        return tuple(rule for rule in self._of(query) if not _allowed(matcher, (rule,), now_ms, rows)[0])

    def _of(self, query: Query) -> tuple[Hard, ...]:
        rules = (*self._rules, *self._of_policy(query.policy)) if query.policy else self._rules
        return tuple(rule for rule in rules if holds(rule.when, query))

    def _mask(self, rules: tuple[Hard, ...], query: Query) -> Mask:
        now_ms = _hour(query)

        def make() -> Bool:
            matcher = self._matcher()
            return _allowed(matcher, rules, now_ms, np.arange(len(matcher.traits), dtype=np.int32))

        return self._masks.get((rules, now_ms), make)


def _hour(query: Query) -> int:
    return query.now_ms // _HOUR_MS * _HOUR_MS


def _allowed(matcher: ItemMatcher, rules: tuple[Hard, ...], now_ms: int, rows_K: Int32) -> Bool:
    """Which of some items (K,) may be shown."""
    allowed_K: Bool = np.ones(len(rows_K), bool)
    for rule in rules:
        found_K = matcher.among(rule.match, rows_K, now_ms)
        allowed_K &= found_K if isinstance(rule, Filter) else ~found_K
    return allowed_K
