"""MovieLens without its cold items or people: what is learned from, who asks, and what they are to be given.

What counts is a rating of 4 or more. Shape letters: N rows of the log, I items, U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import csv
from reproduce_data import Ratings, folder, ratings

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.models.log import Askers, Log
from tastemaker.users.profile import age_band

TUNED_SEED: Final = 100
"""Of the splits on which settings were chosen."""
COLD_SHARE: Final = 0.1
_LIKED: Final = 4.0
_LEAST: Final = 5


@dataclass(frozen=True)
class ColdItems:
    """What is learned from; whom to ask; and what they took of cold and of warm items."""

    train: Log
    cold_I: np.ndarray
    cold_targets: Sequence[np.ndarray]
    warm_targets: Sequence[np.ndarray]


@dataclass(frozen=True)
class ColdUsers:
    """What is learned from, and what the others took, in order of time, with what is known of them."""

    train: Log
    histories: Sequence[np.ndarray]
    attributes: pa.Table


@cache
def log(data: str) -> Log:
    """Ratings of 4 and more of items and users with five of them; ml-100k or ml-1m."""
    found = ratings(data)
    found = found.where(found.rating_N >= _LIKED).core(_LEAST)
    whole = found.log()
    order_I = np.random.default_rng(0).permutation(whole.num_items)  # ids of ml-100k tell what is popular
    found = replace(found, item_ids=[found.item_ids[item] for item in order_I])
    return Log.of(
        whole.user_N, np.argsort(order_I)[whole.item_N], num_users=whole.num_users, num_items=whole.num_items,
        timestamp_ms_N=whole.timestamp_ms_N, items=_movies(data, found), users=_people(data, found),
    )  # fmt: skip


def _movies(data: str, found: Ratings) -> pa.Table:
    """Titles; genres and the year as tags."""
    table, ids = _file(data, "item", found.item_ids), found.item_ids
    genres = table["genre"] if "genre" in table else table["class"]
    years = [str(year).partition(".")[0] for year in table["release_year"]]
    tags = [
        [*str(words).split(), *([f"year {year}"] if year.isdigit() else ())]
        for words, year in zip(genres, years, strict=True)
    ]
    columns: list[list[Any]] = [
        ids,
        [str(title) for title in table["movie_title"]],
        [""] * len(ids),
        tags,
        [None] * len(ids),
    ]
    return pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA)


def _people(data: str, found: Ratings) -> pa.Table:
    """Age band, gender and occupation as words."""
    table = _file(data, "user", found.user_ids)
    told = {name: [str(value) for value in table[name]] for name in ("gender", "occupation")}
    return pa.table({"age_band": [age_band(int(age)) for age in table["age"]], **told})


def _file(data: str, what: str, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of the file of users or items, a row for each id."""
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    table = csv.read_csv(folder(data) / f"{data}.{what}", parse_options=options)
    table = table.rename_columns([column.partition(":")[0] for column in table.column_names])
    at = {str(value): row for row, value in enumerate(table.column(f"{what}_id").to_pylist())}
    order = [at[one] for one in ids]
    return {name: table.column(name).to_numpy(zero_copy_only=False)[order] for name in table.column_names}


def cold_items(data: str, seed: int, *, newest: bool) -> ColdItems:
    """A tenth of the items, by chance or those first taken last, and of the rest a tenth of each user's rows."""
    whole, draws = log(data), np.random.default_rng(seed)
    cold_I = _newest(whole) if newest else _drawn(whole, draws, seed)
    is_cold_N = cold_I[whole.item_N]
    warm_test_N = ~is_cold_N & (draws.random(len(whole)) < COLD_SHARE)
    train = _rows(whole, ~is_cold_N & ~warm_test_N)
    return ColdItems(train, cold_I, _of_users(whole, is_cold_N), _of_users(whole, warm_test_N))


def _newest(whole: Log) -> np.ndarray:
    """(I,) the tenth of the items that was first taken last: the same for all seeds."""
    first_ms_I = np.full(whole.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first_ms_I, whole.item_N, whole.timestamp_ms_N)
    cold_I = np.zeros(whole.num_items, bool)
    cold_I[np.argsort(first_ms_I, kind="stable")[-int(COLD_SHARE * whole.num_items) :]] = True
    return cold_I


def _drawn(whole: Log, draws: np.random.Generator, seed: int) -> np.ndarray:
    """(I,) a tenth of the items by chance, none of which was cold in the split that settings were chosen on."""
    order_I = draws.permutation(whole.num_items)
    if seed != TUNED_SEED:
        tuned_I = _drawn(whole, np.random.default_rng(TUNED_SEED), TUNED_SEED)
        order_I = order_I[~tuned_I[order_I]]
    cold_I = np.zeros(whole.num_items, bool)
    cold_I[order_I[-int(COLD_SHARE * whole.num_items) :]] = True
    return cold_I


def cold_users(data: str, seed: int) -> ColdUsers:
    """A fifth of the users, by chance, is not learned from."""
    whole, draws = log(data), np.random.default_rng(seed)
    out_U = draws.random(whole.num_users) < 0.2
    users = np.flatnonzero(out_U)
    known = Askers.known(whole, users.astype(np.int32))
    assert known.attributes is not None
    return ColdUsers(_rows(whole, ~out_U[whole.user_N]), known.histories, known.attributes)


def _rows(whole: Log, kept_N: np.ndarray) -> Log:
    return Log.of(
        whole.user_N[kept_N], whole.item_N[kept_N], num_users=whole.num_users, num_items=whole.num_items,
        timestamp_ms_N=whole.timestamp_ms_N[kept_N], items=whole.items, users=whole.users,
    )  # fmt: skip


def _of_users(whole: Log, kept_N: np.ndarray) -> list[np.ndarray]:
    return _rows(whole, kept_N).histories()
