"""Fills the views from records: the one way from a user's or item's record to named values.

The same for serving, for Feast's rows and for training: whoever has the record has the values.

Shape letters: N records, F numbers of a view, K rows of a record, W windows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.data.values import repeated_values_of
from tastemaker.features.content import texts_of
from tastemaker.features.counters import ROWS, WEIGHT, WINDOWS_MS, Counters, row_of
from tastemaker.features.user_state import UserState
from tastemaker.features.views import COUNT_WINDOWS, MOST_TASTES, RATES, VIEW, View, ViewRows
from tastemaker.types import Float64
from tastemaker.users.profile import Profile, age_at

PRICE = "price"
_WINDOW = {window: w for w, window in enumerate(WINDOWS_MS)}


def user_rows(states: Sequence[UserState]) -> list[ViewRows]:
    """Rows of all views of users, one a state."""
    counters = joined([state.counters for state in states])
    return [_counter_rows(VIEW["user_counters"], counters), _taste_rows(states), _session_rows(states)]


def item_rows(counters: Counters) -> list[ViewRows]:
    """Rows of the views of items that follow the stream, one a record."""
    weight_NW = counters.value_NKW[:, row_of(WEIGHT)]
    popularity = [
        counters.last_ms_N,
        *(weight_NW[:, _WINDOW[window]] for window in ("all", "30d", "7d", "1d")),
    ]
    return [
        _counter_rows(VIEW["item_counters"], counters),
        _filled(VIEW["item_popularity"], np.stack(popularity, axis=1)),
    ]


def joined(parts: Sequence[Counters]) -> Counters:
    """The records of all parts, one after the other."""
    none = Counters.zeros(0)
    return Counters(
        np.concatenate([none.value_NKW, *(part.value_NKW for part in parts)]),
        np.concatenate([none.last_ms_N, *(part.last_ms_N for part in parts)]),
    )


def attribute_rows(items: pa.Table, said_ms: int) -> ViewRows:
    """Rows of `item_attributes`, one an item of a catalogue that was read at `said_ms`.

    A price is known where the table has a column of it.
    """
    created = _numbers(items, Column.CREATED_AT_MS)
    value_NF = np.stack([np.full(len(items), float(said_ms)), created, _numbers(items, PRICE)], axis=1)
    categories = repeated_values_of(items[Column.CATEGORY])
    return _filled(VIEW["item_attributes"], value_NF, {"item_category": categories})


def content_rows(items: pa.Table, said_ms: int, space: str) -> ViewRows:
    """Rows of `item_content`, one an item of a catalogue that was read at `said_ms`; `space` is empty where there is none.

    Items of one text have one hash: it is what their vectors are kept by, not the vectors themselves.
    """
    hashes = [hashlib.sha256(text.encode()).hexdigest() if text else "" for text in texts_of(items)]
    texts = {"content_sha256": hashes, "content_space": [space] * len(items)}
    return _filled(VIEW["item_content"], np.full((len(items), 1), float(said_ms)), texts)


def profile_rows(profiles: Sequence[Profile]) -> ViewRows:
    """Rows of `user_profile`, one a profile."""
    value_NF = [
        [
            profile.updated_ms,
            np.nan if (age := age_at(profile.demographics, profile.updated_ms)) is None else age,
            *((np.nan, np.nan) if profile.location is None else (profile.location.lat, profile.location.lon)),
        ]
        for profile in profiles
    ]
    view = VIEW["user_profile"]
    genders = {"user_gender": [profile.demographics.gender or "" for profile in profiles]}
    return _filled(view, np.array(value_NF, np.float64).reshape(len(profiles), len(view.numbers)), genders)


def _counter_rows(view: View, counters: Counters) -> ViewRows:
    kept_NKW = counters.value_NKW[:, :, [_WINDOW[window] for window in COUNT_WINDOWS]]
    rates = [_rate(kept_NKW, over, under) for over, under in RATES.values()]
    parts = [
        counters.last_ms_N[:, None],
        kept_NKW.reshape(len(counters), len(ROWS) * len(COUNT_WINDOWS)),
        *rates,
    ]
    return _filled(view, np.concatenate(parts, axis=1, dtype=np.float64))


def _rate(count_NKW: Float64, over: Sequence[str], under: Sequence[str]) -> Float64:
    over_NW = count_NKW[:, [row_of(kind) for kind in over]].sum(axis=1)
    under_NW = count_NKW[:, [row_of(kind) for kind in under]].sum(axis=1)
    known_NW = np.minimum(over_NW, under_NW)
    rate_NW: Float64 = np.divide(known_NW, under_NW, out=np.zeros_like(over_NW), where=under_NW > 0)
    return rate_NW


def _taste_rows(states: Sequence[UserState]) -> ViewRows:
    strongest = [_strongest(state.affinity) for state in states]
    value_NF = [
        [state.last_ms, *(weight for _, weight in tastes), sum(state.affinity.values()), len(state.affinity)]
        for state, tastes in zip(states, strongest, strict=True)
    ]
    names = {f"taste_{p + 1}": [tastes[p][0] for tastes in strongest] for p in range(MOST_TASTES)}
    view = VIEW["user_taste"]
    return _filled(view, np.array(value_NF, np.float64).reshape(len(states), len(view.numbers)), names)


def _strongest(affinity: Mapping[str, float]) -> list[tuple[str, float]]:
    """The heaviest categories, by name where they weigh the same, and nameless ones of no weight up to `MOST_TASTES`."""
    ordered = sorted(affinity.items(), key=lambda taste: (-taste[1], taste[0]))[:MOST_TASTES]
    return ordered + [("", 0.0)] * (MOST_TASTES - len(ordered))


def _session_rows(states: Sequence[UserState]) -> ViewRows:
    """Sessions as of their newest item; where none was taken, of no length as of the newest event."""
    view = VIEW["user_session"]
    value_NF = np.zeros((len(states), len(view.numbers)))
    value_NF[:, view.position["session_started_ms"]] = np.nan
    value_NF[:, 0] = [state.last_ms for state in states]
    for n, state in enumerate(states):
        if state.taken:
            last_ms = state.taken[-1][0]
            length = len(state.session(last_ms))
            value_NF[n] = last_ms, length, state.taken[-length][0]
    last = [state.taken[-1][1] if state.taken else "" for state in states]
    return _filled(view, value_NF, {"session_last_item": last})


def _numbers(table: pa.Table, name: str) -> Float64:
    """A column of numbers, NaN where it is null or not there."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    column: Any = table[name].cast(pa.float64())
    return np.asarray(column.to_numpy(), np.float64)


def _filled(view: View, value_NF: Float64, texts: Mapping[str, Sequence[str]] | None = None) -> ViewRows:
    assert value_NF.shape[1] == len(view.numbers), f"{view.name} has {len(view.numbers)} numbers"
    return ViewRows(view, value_NF, texts or {})
