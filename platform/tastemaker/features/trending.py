"""What trends at this moment, read as a whole from the rankings, everywhere and by country, and in a bundle's rows.

A snapshot never changes: whoever holds one goes on with it while the next is read. Not for ordering by taste.

Shape letters: N items.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import redis

from tastemaker.features.counters import WINDOWS_MS
from tastemaker.features.countries import country_of
from tastemaker.features.rankings import MOST_RANKED, TREND_WINDOW, in_category, in_country
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Float32, Float64, Int32

TRENDING: Final = "trending"
"""The ranking, and the source that proposes from it."""
MOST_READ: Final = 300
"""Rankings of categories and countries that a snapshot holds, longest first; whoever is not among them trends everywhere."""
PART_DEPTH: Final = 200
"""Items of each of them."""


@dataclass(frozen=True)
class Ranked:
    """Items, each once, and the logarithm of the decayed weight of each."""

    item_ids: tuple[str, ...]
    log_weight_N: Float64

    def __len__(self) -> int:
        return len(self.item_ids)


Scores = Sequence[tuple[str, float]]
"""Items of a ranking and their scores, which do not age."""
NOBODY: Final = Ranked((), np.empty(0))


class Trending:
    """A snapshot as of `read_ms`. Immutable; any thread may read it.

    Args:
        read_ms: When it was read.
        everywhere: Items that trend, the best of each category among them.
        countries: Items by what happened in one country.
        country_prior: Weight of events in a country that counts as much there as what trends everywhere.
    """

    def __init__(
        self, read_ms: int, everywhere: Ranked, countries: Mapping[str, Ranked], country_prior: float
    ) -> None:
        self.read_ms, self.everywhere = read_ms, everywhere
        self._countries, self._prior = countries, country_prior
        self._share_of = dict(zip(everywhere.item_ids, _shares(everywhere.log_weight_N), strict=True))

    @property
    def weight(self) -> float:
        """Decayed weight of all items together, about: of those that are ranked."""
        return float(np.exp(self.everywhere.log_weight_N).sum())

    def of(self, country: str) -> list[tuple[str, float]]:
        """Items with their shares, best first, the best of share 1; of equal ones the smaller id first.

        In a country an item's share is that of its weight there, with what trends everywhere as if it were `country_prior`
        of weight more: the mean of a Dirichlet-multinomial. So a country of few events shows what trends everywhere, and one
        of many its own.
        """
        local = self._countries.get(country, NOBODY)
        shares = {item_id: self._prior * share for item_id, share in self._share_of.items()}
        for item_id, weight in zip(local.item_ids, np.exp(local.log_weight_N).tolist(), strict=True):
            shares[item_id] = shares.get(item_id, 0.0) + weight
        ordered = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
        best = ordered[0][1] if ordered else 1.0
        return [(item_id, share / best) for item_id, share in ordered]


class TrendingRows:
    """What trends, as rows of one bundle. Any thread may ask.

    Args:
        row_of: The row of an item; None where the bundle lacks it.
        current: The newest snapshot; None where there is none to be trusted.
    """

    def __init__(self, row_of: Callable[[str], int | None], current: Callable[[], Trending | None]) -> None:
        self._row_of, self._current = row_of, current
        self._kept: tuple[Trending | None, dict[str, tuple[Int32, Float32]]] = (None, {})

    def listed(self, contexts: Sequence[Mapping[str, str]]) -> list[tuple[Int32, Float32]] | None:
        """For the context of each request rows, best first, and their shares; None where nothing is known of now.

        All of them by one snapshot.
        """
        trending = self._current()
        if trending is None:
            return None
        of, lists = self._kept
        if of is not trending:
            lists = {}
            self._kept = trending, lists
        return [self._in(trending, lists, country_of(context)) for context in contexts]

    def _in(
        self, trending: Trending, lists: dict[str, tuple[Int32, Float32]], country: str
    ) -> tuple[Int32, Float32]:
        if country not in lists:
            rows = [(self._row_of(item_id), share) for item_id, share in trending.of(country)]
            known = [(row, share) for row, share in rows if row is not None]
            lists[country] = (
                np.array([row for row, _ in known], np.int32),
                np.array([share for _, share in known], np.float32),
            )
        return lists[country]


def read_trending(client: redis.Redis, keys: Keys, now_ms: int, country_prior: float) -> Trending:
    """What trends as of `now_ms`, in two exchanges.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read what trends"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.hget(keys.item_totals_guard, "trend_window")
        pipe.smembers(keys.rankings)
        window, names = pipe.execute()
        parts = _longest(client, keys, [name for name in names if name.startswith(f"{TRENDING}:")])
        pipe.zrange(keys.ranking(TRENDING), 0, MOST_RANKED - 1, desc=True, withscores=True)
        for name in parts:
            pipe.zrange(keys.ranking(name), 0, PART_DEPTH - 1, desc=True, withscores=True)
        everywhere, *found = pipe.execute()
    by_name = dict(zip(parts, found, strict=True))
    return trending_of(now_ms, everywhere, by_name, window or TREND_WINDOW, country_prior)


def trending_of(
    now_ms: int,
    everywhere: Scores,
    by_name: Mapping[str, Scores],
    window: str,
    country_prior: float,
) -> Trending:
    """The snapshot that rankings make.

    Args:
        now_ms: The moment that weights are of.
        everywhere: Items and their scores in the ranking of all.
        by_name: The same of rankings of categories and countries; see `rankings.in_category`.
        window: Of the scores; see `rankings.scores`.
        country_prior: See `Trending`.
    """
    age = now_ms / WINDOWS_MS[window]
    local, whole = in_country(TRENDING, ""), in_category(TRENDING, "")
    categories = [pairs for name, pairs in by_name.items() if name.startswith(whole)]
    countries = {
        name.removeprefix(local): _ranked(dict(pairs), age)
        for name, pairs in by_name.items()
        if name.startswith(local)
    }
    # An item has one score in all of them; one that has left a category since may have an older one there.
    scores = {item_id: score for pairs in (*categories, everywhere) for item_id, score in pairs}
    return Trending(now_ms, _ranked(scores, age), countries, country_prior)


def _longest(client: redis.Redis, keys: Keys, names: Sequence[str]) -> list[str]:
    """At most `MOST_READ` of the rankings."""
    if len(names) <= MOST_READ:
        return sorted(names)
    pipe: Any = client.pipeline(transaction=False)
    for name in names:
        pipe.zcard(keys.ranking(name))
    lengths = dict(zip(names, pipe.execute(), strict=True))
    return sorted(names, key=lambda name: (-lengths[name], name))[:MOST_READ]


def _ranked(scores: Mapping[str, float], age: float) -> Ranked:
    return Ranked(tuple(scores), np.array(list(scores.values()), np.float64) - age)


def _shares(log_weight_N: Float64) -> list[float]:
    """Shares of the whole; also of weights too small to be told from 0."""
    weight_N = np.exp(log_weight_N - log_weight_N.max(initial=-np.inf))
    shares: list[float] = (weight_N / max(weight_N.sum(), 1.0)).tolist()
    return shares
