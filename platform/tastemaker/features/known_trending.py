"""What trended at a moment of the past, by the events that were known then: for answers that are made again.

The rankings that answers read are functions of the events; here they are made of the log. They were read up to some seconds before an
answer, and written up to a second before that: who needs them exactly must say the moment. Not for answering: see `trending`.

Shape letters: E events, N pairs of a group and an item.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.features.counters import WINDOWS_MS, event_weight
from tastemaker.features.countries import countries_of
from tastemaker.features.rankings import MOST_RANKED, in_category, in_country
from tastemaker.features.trending import MOST_READ, PART_DEPTH, TRENDING, Scores, Trending, trending_of
from tastemaker.features.user_state import Category
from tastemaker.types import Float64


def known_trending(
    events: pa.Table, moment_ms: int, category: Category, window: str, country_prior: float
) -> Trending:
    """What trended by the events that were received before a moment.

    Args:
        events: With columns of `archive.EVENT_SCHEMA`, each once, in any order; all of them touch state.
        moment_ms: Weights are of it too.
        category: Of items, as the stream's consumer knows them.
        window: Of `trending`; see `counters.WINDOWS_MS`.
        country_prior: See `Trending`.
    """
    known = events.filter(pc.field("received_ms") < moment_ms)
    weight_E = _weights(known)
    known, weight_E = known.filter(pa.array(weight_E > 0)), weight_E[weight_E > 0]
    log_E = np.log(weight_E) + known["timestamp_ms"].to_numpy() / WINDOWS_MS[window]
    scores = _scores(known["item_id"].to_pylist(), log_E)
    parts: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for item_id, score in scores.items():
        if name := category(item_id):
            parts[in_category(TRENDING, name)][item_id] = score
    there: list[Any] = countries_of(known["context"]).to_pylist()
    pairs = zip(there, known["item_id"].to_pylist(), strict=True)
    local = [(country, item_id) if country else None for country, item_id in pairs]
    is_local_E = np.array([pair is not None for pair in local], bool)
    for (country, item_id), score in _scores([pair for pair in local if pair], log_E[is_local_E]).items():
        parts[in_country(TRENDING, country)][item_id] = score
    longest = sorted(parts, key=lambda name: (-min(len(parts[name]), MOST_RANKED), name))[:MOST_READ]
    by_name = {name: _best(parts[name], PART_DEPTH) for name in longest}
    return trending_of(moment_ms, _best(scores, MOST_RANKED), by_name, window, country_prior)


def _weights(events: pa.Table) -> Float64:
    """What each event weighs (E,)."""
    kinds: list[Any] = events["kind"].to_pylist()
    values: list[Any] = events["value"].to_pylist()
    return np.array(
        [event_weight(kind, value) for kind, value in zip(kinds, values, strict=True)], np.float64
    )


def _scores(keys: Iterable[Any], log_E: Float64) -> dict[Any, float]:
    """Of each key, the logarithm of the sum of what its events weigh."""
    place: dict[Any, int] = {}
    at_E = np.array([place.setdefault(key, len(place)) for key in keys], np.int64)
    largest_N = np.full(len(place), -np.inf)
    np.maximum.at(largest_N, at_E, log_E)
    sum_N = np.bincount(at_E, np.exp(log_E - largest_N[at_E]), len(place))
    return dict(zip(place, (largest_N + np.log(sum_N)).tolist(), strict=True))


def _best(scores: Mapping[str, float], num: int) -> Scores:
    """The first of a ranking; of equals the larger id first, as a sorted set has them from its end."""
    ordered = sorted(scores.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
    return ordered[:num]
