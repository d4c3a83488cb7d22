"""What is popular and what trends, everywhere, in a category and in a country: sorted sets whose scores never age.

A score is log(weight) + time / window: it orders items at any later moment as their decayed weights do, since all lose
the same share [Cormode et al. 2009, forward decay]. So no scan makes a ranking fresh, and an item has the same score in
the ranking of its category as in that of all. `totals` writes them.

Shape letters: N items.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import redis

from tastemaker.errors import UsageError
from tastemaker.features.counters import WEIGHT, WINDOWS_MS, Counters, row_of
from tastemaker.features.countries import CONTEXT_COUNTRY, country_of
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

TREND_WINDOW: Final = "7d"
"""Window of `trending` where no other is configured."""
MOST_RANKED: Final = 1000


class Entry(NamedTuple):
    """An item's place in a ranking; of -inf, it has none."""

    ranking: str
    item_id: str
    score: float


class Top(NamedTuple):
    """The best of a ranking, best first, each with its decayed weight as of the moment of reading."""

    item_ids: list[str]
    weight_N: list[float]


def windows(trend_window: str = TREND_WINDOW) -> dict[str, str]:
    """The window of each ranking by weight."""
    return {"popular": "all", "trending": trend_window}


def in_category(name: str, category: str) -> str:
    """The ranking `name` among the items of a category.

    >>> in_category("trending", "drama")
    'trending:category=drama'
    """
    return f"{name}:category={category}"


def in_country(name: str, country: str) -> str:
    """The ranking `name` by what happened in a country alone; see `countries.country_of`.

    >>> in_country("trending", "DE")
    'trending:country=DE'
    """
    return f"{name}:country={country}"


def ranking_of(name: str, *, country: str | None = None, category: str | None = None) -> str:
    """The ranking that somebody asks for: of all items, of a country or of a category.

    >>> ranking_of("popular", country="de")
    'popular:country=DE'

    Raises:
        UsageError: There is no such ranking.
    """
    if name not in windows():
        known = ", ".join(windows())
        raise UsageError("ranking", value=name, limit=f"one of: {known}", mend="name one of them")
    if country is not None and category is not None:
        raise UsageError("a ranking is of a country or of a category", mend="name one of the two")
    if category is not None:
        return in_category(name, category)
    if country is None:
        return name
    code = country_of({CONTEXT_COUNTRY: country})
    if not code:
        raise UsageError("no country", value=country, limit="two letters of ISO 3166-1", mend="correct it")
    return in_country(name, code)


def scores(totals: Counters, window: str) -> list[float]:
    """Each item's score in a ranking by the weight of a window; -inf without weight.

    >>> e = Counters.zeros(2).plus(np.array([0, 1]), np.array([row_of(WEIGHT)] * 2), np.ones(2), np.array([0, 604800000]))
    >>> scores(e, "7d"), scores(e, "all")  # a week apart: one of e-fold
    ([0.0, 1.0], [0.0, 0.0])
    """
    value_N = totals.value_NKW[:, row_of(WEIGHT), list(WINDOWS_MS).index(window)]
    with np.errstate(divide="ignore"):
        found: list[float] = (np.log(value_N) + totals.last_ms_N / WINDOWS_MS[window]).tolist()
    return found


def commands_of(keys: Keys, entries: Iterable[Entry]) -> list[Command]:
    """Puts items into rankings, in place of what they had there, and takes those without a score out."""
    placed: dict[str, list[str]] = {}
    gone: dict[str, list[str]] = {}
    for ranking, item_id, score in entries:
        if np.isfinite(score):
            placed.setdefault(ranking, []).extend((repr(float(score)), item_id))
        else:
            gone.setdefault(ranking, []).append(item_id)
    longest = str(-MOST_RANKED - 1)
    commands: list[Command] = [("SADD", keys.rankings, *placed)] if placed else []
    for ranking, words in placed.items():
        key = keys.ranking(ranking)
        commands += [("ZADD", key, *words), ("ZREMRANGEBYRANK", key, "0", longest)]
    return commands + [("ZREM", keys.ranking(ranking), *ids) for ranking, ids in gone.items()]


def top(client: redis.Redis, keys: Keys, name: str, k: int, now_ms: int) -> Top:
    """The first `k` items of a ranking; at most `MOST_RANKED` are kept.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        name: Of `windows`, or one of these `in_category` or `in_country`.
        k: How many.
        now_ms: The moment that weights are of.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors(f"read the ranking {name}"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.hget(keys.item_totals_guard, "trend_window")
        pipe.zrange(keys.ranking(name), 0, k - 1, desc=True, withscores=True)
        trend_window, found = pipe.execute()
    window_ms = WINDOWS_MS[windows(trend_window or TREND_WINDOW)[name.partition(":")[0]]]
    aged = np.array([score for _, score in found], np.float64) - now_ms / window_ms
    return Top([item_id for item_id, _ in found], np.exp(aged).tolist())
