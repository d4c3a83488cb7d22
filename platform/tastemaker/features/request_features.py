"""The features of one user's candidates, from the user's record and the items' rows: counts, rates and crosses.

The one arithmetic for serving, training and checks of what was served: who has the record and the rows has the features.
All are as of the moment of the request. Counts and weights enter as log(1 + x), and what is unknown is 0.

Shape letters: K candidates, F features, C categories.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tastemaker.features.item_store import NO_CATEGORY, CandidateRows, ItemFacts
from tastemaker.features.places import Place
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import user_rows
from tastemaker.features.views import VIEW
from tastemaker.types import Float32, Float64, Int32, Int64

_DAY_MS: Final = 86_400_000.0
_ITEM_COUNTS: Final = tuple(
    f"item_{kind}_{window}"
    for kind in ("impression", "click", "view", "purchase", "rating")
    for window in ("1d", "7d", "30d")
) + tuple(f"item_weight_{window}" for window in ("1h", "1d", "7d", "30d"))
_ITEM_RATES: Final = (
    "item_clicks_per_impression_7d", "item_clicks_per_impression_30d", "item_purchases_per_click_30d",
    "item_refusals_per_impression_30d",
)  # fmt: skip
_ITEM_OTHERS: Final = ("item_growth", "item_age_days", "item_price")
_USER_COUNTS: Final = (
    *(f"user_weight_{window}" for window in ("1h", "1d", "7d", "30d")),
    *(f"user_{kind}_7d" for kind in ("impression", "click", "view", "purchase")),
)
_USER_RATES: Final = (
    "user_clicks_per_impression_7d", "user_clicks_per_impression_30d", "user_refusals_per_impression_30d",
)  # fmt: skip
_USER_OTHERS: Final = ("session_length", "user_idle_days", "taste_num_categories")
CROSSES: Final = (
    "taste_weight", "taste_share", "taste_strongest", "novelty", "session_share", "in_session", "times_shown",
    "refused", "taste_times_popularity", "popularity_among_candidates",
)  # fmt: skip
DISTANCE: Final = ("log_distance_km", "distance_known")
_ITEM_FEATURES: Final = (*_ITEM_COUNTS, *_ITEM_RATES, *_ITEM_OTHERS)
_USER_FEATURES: Final = (*_USER_COUNTS, *_USER_RATES, *_USER_OTHERS)
REQUEST_FEATURES: Final = (*_ITEM_FEATURES, *_USER_FEATURES, *CROSSES, *DISTANCE)
"""Names in the order of the columns."""
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "item": _ITEM_FEATURES, "user": _USER_FEATURES, "cross": CROSSES, "distance": DISTANCE, "all": REQUEST_FEATURES,
}  # fmt: skip
"""What stands for several features where they are named."""


def _places(view: str, names: Sequence[str]) -> Int64:
    return np.array([VIEW[view].position[name] for name in names])


_ITEM_COUNTS_F: Final = _places("item_counters", _ITEM_COUNTS)
_ITEM_RATES_F: Final = _places("item_counters", _ITEM_RATES)
_USER_COUNTS_F: Final = _places("user_counters", _USER_COUNTS)
_USER_RATES_F: Final = _places("user_counters", _USER_RATES)
_WEEK_AND_MONTH_F: Final = _places("item_popularity", ("trend_7d", "popularity_30d"))
_CREATED_AND_PRICE_F: Final = _places("item_attributes", ("item_created_ms", "item_price"))


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The features that are named, alone or by `GROUPS`, each once and in the order of `REQUEST_FEATURES`.

    >>> chosen(["refused", "item_price"])
    ('item_price', 'refused')

    Raises:
        ValueError: A name is neither a feature's nor a group's.
    """
    wanted: set[str] = set()
    for name in names:
        if name not in GROUPS and name not in REQUEST_FEATURES:
            raise ValueError(
                f"{name!r} is no feature of a request; known are {', '.join(GROUPS)} and {', '.join(REQUEST_FEATURES)}"
            )
        wanted |= {*GROUPS.get(name, (name,))}
    return tuple(name for name in REQUEST_FEATURES if name in wanted)


def features_for(
    state: UserState, candidates: CandidateRows, now_ms: int, place: Place | None = None
) -> Float32:
    """The `REQUEST_FEATURES` (K, F) of a user's candidates.

    Args:
        state: Of the user.
        candidates: What is known of them, all of one version.
        now_ms: The moment of the request.
        place: Where it comes from; unset, that is unknown.
    """
    week_K, month_K = candidates.popularity.at(now_ms)[:, _WEEK_AND_MONTH_F].T
    parts = [
        _of_items(candidates, week_K, month_K, now_ms),
        np.broadcast_to(_of_user(state, now_ms), (len(candidates), len(_USER_FEATURES))),
        _crosses(state, candidates, month_K, now_ms),
        _distances(candidates, place),
    ]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def of_nobody(names: Sequence[str]) -> Float32:
    """What features (F,) of these names are where nothing is known of the user; NaN for those that a record does not change.

    >>> of_nobody(["user_idle_days", "novelty", "item_price"]).tolist()
    [0.0, 1.0, nan]
    """
    known = dict(zip(_USER_FEATURES, _of_user(UserState(), now_ms=0), strict=True))
    known |= dict.fromkeys(CROSSES, 0.0) | {"novelty": 1.0, "popularity_among_candidates": np.nan}
    return np.array([known.get(name, np.nan) for name in names], np.float32)


def _of_items(candidates: CandidateRows, week_K: Float64, month_K: Float64, now_ms: int) -> Float64:
    value_KF = candidates.counters.at(now_ms)
    attributes = candidates.facts.attributes.value_NF[candidates.item_index]
    created_K, price_K = attributes[:, _CREATED_AND_PRICE_F].T
    others = [
        # By day in the week over by day in the month: 0 where both are alike, and where there is nothing.
        np.log((week_K / 7 + 1e-3) / (month_K / 30 + 1e-3)),
        np.log1p(np.maximum(np.nan_to_num((now_ms - created_K) / _DAY_MS), 0)),
        np.log1p(np.maximum(np.nan_to_num(price_K), 0)),
    ]
    counts_KF = np.log1p(value_KF[:, _ITEM_COUNTS_F])
    return np.concatenate([counts_KF, value_KF[:, _ITEM_RATES_F], np.stack(others, axis=1)], axis=1)


def _of_user(state: UserState, now_ms: int) -> Float64:
    counters, _, session = user_rows([state])
    value_F = counters.at(now_ms)[0]
    length = session.at(now_ms)[0, session.view.position["session_length"]]
    idle_days = max(now_ms - state.last_ms, 0) / _DAY_MS if state.last_ms else 0.0
    others = np.log1p([length, idle_days, len(state.affinity)])
    return np.concatenate([np.log1p(value_F[_USER_COUNTS_F]), value_F[_USER_RATES_F], others])


def _crosses(state: UserState, candidates: CandidateRows, month_K: Float64, now_ms: int) -> Float64:
    """The `CROSSES` (K, F)."""
    items, rows_K = candidates.facts, candidates.item_index
    category_K = items.category_I[rows_K]
    taste_C = _by_category(items, state.tastes(now_ms))
    weight_K = taste_C[category_K]
    share_K = weight_K / max(taste_C.sum(), 1e-12)
    session = [items.index[item_id] for item_id in state.session(now_ms) if item_id in items.index]
    session_C = np.bincount(items.category_I[session], minlength=len(taste_C)) / max(len(session), 1)
    session_C[NO_CATEGORY] = 0
    shown = {item_id: shown.at(now_ms) for item_id, shown in state.shown.items()}
    popular_K = np.log1p(month_K)
    columns = [
        np.log1p(weight_K),
        share_K,
        (weight_K > 0) & (weight_K == taste_C.max()),
        1 - weight_K / max(float(np.linalg.norm(taste_C)), 1e-12),
        session_C[category_K],
        _by_item(items, rows_K, dict.fromkeys(state.session(now_ms), 1.0)),
        np.log1p(_by_item(items, rows_K, shown)),
        _by_item(items, rows_K, dict.fromkeys(state.refused(), 1.0)),
        share_K * popular_K,
        popular_K - popular_K.mean() if len(popular_K) else popular_K,
    ]
    return np.stack(columns, axis=1)


def _distances(candidates: CandidateRows, place: Place | None) -> Float64:
    """The `DISTANCE` (K, 2): both 0 where either side's place is unknown, which the second tells from being there."""
    if place is None:
        return np.zeros((len(candidates), len(DISTANCE)))
    km_K = candidates.facts.places.distance_km(place, candidates.item_index)
    known_K = ~np.isnan(km_K)
    return np.stack([np.log1p(np.where(known_K, km_K, 0)), known_K], axis=1)


def _by_category(items: ItemFacts, weights: Mapping[str, float]) -> Float64:
    """Weights (C,) in the order of the facts' categories; those that it does not know are left out."""
    weight_C = np.zeros(len(items.categories) + 1)
    for name, weight in weights.items():
        weight_C[items.categories.get(name, NO_CATEGORY)] = weight
    weight_C[NO_CATEGORY] = 0
    return weight_C


def _by_item(items: ItemFacts, rows_K: Int32, values: Mapping[str, float]) -> Float64:
    """Each candidate's value (K,) by item id; 0 where it has none."""
    if not values:
        return np.zeros(len(rows_K))
    of_row = {
        row: value for item_id, value in values.items() if (row := items.index.get(item_id)) is not None
    }
    if not of_row:
        return np.zeros(len(rows_K))
    known_N = np.array(sorted(of_row))
    value_N = np.array([of_row[row] for row in known_N.tolist()])
    at_K = np.minimum(np.searchsorted(known_N, rows_K), len(known_N) - 1)
    return np.where(known_N[at_K] == rows_K, value_N[at_K], 0.0)
