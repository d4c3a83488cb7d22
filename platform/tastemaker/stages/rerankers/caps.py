"""Limits on what stands together: at most so many of a group on a page, and no two of a category too near.

Shape letters: N candidates.
"""

import numpy as np
from pydantic import Field

from tastemaker.stages.rerankers.seen import RerankingItems, Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int32, Int64, Query


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
    pages, left = [], np.arange(len(seen))
    for number in range(-(-min(seen.k, len(seen)) // page)):
        group = group_N[left]
        within: Bool = (occurrence(group) < most) | (group < 0)
        within[: max(seen.keep_top - number * page, 0)] = True
        taken = np.argsort(~within, kind="stable")[:page]
        pages.append(left[taken])
        left = np.delete(left, taken)
    return np.concatenate([*pages, left])


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


def occurrence(group_N: Int32) -> Int64:
    """How many items before each have its group (N,).

    >>> occurrence(np.array([7, 3, 7, 7], np.int32)).tolist()
    [0, 0, 1, 2]
    """
    order_N = np.argsort(group_N, kind="stable")
    sorted_N = group_N[order_N]
    starts_N = np.r_[True, sorted_N[1:] != sorted_N[:-1]] if len(sorted_N) else np.empty(0, bool)
    begin_N = np.maximum.accumulate(np.where(starts_N, np.arange(len(sorted_N)), 0))
    count_N = np.empty(len(group_N), np.int64)
    count_N[order_N] = np.arange(len(group_N)) - begin_N
    return count_N
