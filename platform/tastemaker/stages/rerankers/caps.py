"""Limits on what stands together: at most so many of a group on a page, and no two of a category too near.

Shape letters: N candidates.
"""

import numpy as np
from pydantic import Field

from tastemaker.stages.rerankers.seen import RerankingItems, Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Int32, Int64, Query


class CategoryCapConfig(Strict):
    """At most so many items of one category on each page of the list; prefixes do not depend on how long it is."""

    page: int = Field(10, ge=1, description="items on a page")
    max_per_category: int = Field(
        6, ge=1, description="items of one category on a page; items without one are free"
    )


class FranchiseCapConfig(Strict):
    """At most so many items of one franchise on each page of the list."""

    page: int = Field(10, ge=1, description="items on a page")
    max_per_franchise: int = Field(
        2, ge=1, description="items of one franchise on a page; items without one are free"
    )


class SpreadConfig(Strict):
    """Items of one category stand apart."""

    apart: int = Field(
        1, ge=1, le=10, description="items of others between two of one category, where there are any"
    )
    head: int = Field(50, ge=1, le=500, description="best-ranked candidates that are reordered")


def category_cap(query: Query, seen: Seen, items: RerankingItems, config: CategoryCapConfig) -> Int64:
    """The order (N,) of the list under the cap."""
    del query
    return capped(items.category_I[seen.rows_N], seen, config.page, config.max_per_category)


def franchise_cap(query: Query, seen: Seen, items: RerankingItems, config: FranchiseCapConfig) -> Int64:
    """The order (N,) of the list under the cap."""
    del query
    return capped(items.franchise(seen.rows_N), seen, config.page, config.max_per_franchise)


def capped(group_N: Int32, seen: Seen, page: int, most: int) -> Int64:
    """Fills the pages that the first k span, each with the best that its cap lets in, then others; the rest follows."""
    groups, left = group_N.tolist(), list(range(len(seen)))
    pages: list[int] = []
    for number in range(-(-min(seen.k, len(seen)) // page)):
        taken, left = _page(groups, left, page, most, max(seen.keep_top - number * page, 0))
        pages += taken
    return np.array(pages + left, np.int64)


def _page(
    groups: list[int], left: list[int], page: int, most: int, num_free: int
) -> tuple[list[int], list[int]]:
    """The places of one page, and what is left behind it; the first `num_free` are taken whatever their group."""
    counts: dict[int, int] = {}
    taken, over = list[int](), list[int]()
    at = 0
    while at < len(left) and len(taken) < page:
        group = groups[left[at]]
        counts[group] = count = counts.get(group, 0) + 1
        within = at < num_free or group < 0 or count <= most
        (taken if within else over).append(left[at])
        at += 1
    missing = page - len(taken)
    return taken + over[:missing], over[missing:] + left[at:]


def spread(query: Query, seen: Seen, items: RerankingItems, config: SpreadConfig) -> Int64:
    """The order (N,) in which each place has the best item whose category none of the `apart` places before has.

    Where every item left has one of those, the best of them comes all the same.
    """
    del query
    left = items.category_I[seen.rows_N[: config.head]].tolist()
    places = list(range(len(left)))
    lately = left[max(seen.keep_top - config.apart, 0) : seen.keep_top]
    chosen, places = places[: seen.keep_top], places[seen.keep_top :]
    while places:
        at = next((at for at, place in enumerate(places) if left[place] < 0 or left[place] not in lately), 0)
        chosen.append(places.pop(at))
        lately = [*lately, left[chosen[-1]]][-config.apart :]
    return with_rest(np.array(chosen, np.int64), len(seen))
