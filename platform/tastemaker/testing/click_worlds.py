"""A small world of clicks in which the best answer is known; of `contracts_ctr`.

Shape letters: N rows, U users, I items, G genres.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows
from tastemaker.models.ctr.model import Labelled
from tastemaker.types import Float64

NUM_USERS, NUM_ITEMS, NUM_GENRES = 40, 24, 3


@dataclass(frozen=True, slots=True)
class ClickWorld:
    """Rows in which all that matters is who meets what.

    A user likes some of the genres and not the others, with as many users for a genre as against it, so that among a user's
    rows no field says anything alone but the price: log-odds are 2.5 or -2.5, less a price of deviation 1. A history has items of liked genres.
    """

    learned: Labelled
    tested: Labelled
    chance_N: Float64

    @classmethod
    def of(cls, seed: int, num_rows: int = 4500) -> "ClickWorld":
        """The world of a seed; a third of its rows is held out, `chance_N` are theirs."""
        draws = np.random.default_rng(seed)
        genre_I = np.arange(NUM_ITEMS) % NUM_GENRES
        likes_UG = np.where(
            draws.permuted(np.arange(NUM_USERS)[:, None] % 2 * np.ones(NUM_GENRES), axis=0) > 0, 1, -1
        )
        user_N = np.sort(draws.integers(NUM_USERS, size=num_rows))
        item_N = draws.integers(NUM_ITEMS, size=num_rows)
        price_N = draws.normal(size=num_rows)
        chance_N = 1 / (1 + np.exp(-(2.5 * likes_UG[user_N, genre_I[item_N]] - price_N)))
        liked = [np.flatnonzero(likes_UG[user, genre_I] > 0) for user in range(NUM_USERS)]
        histories = [draws.choice(some, 4) + 1 if len(some) else some for some in liked]
        columns = {
            "user": user_N + 1, "item": item_N + 1, "genre": [[genre_I[item] + 1] for item in item_N],
            "history": [histories[user] for user in user_N], "price": price_N,
        }  # fmt: skip
        whole = Labelled.of(Rows.of(FIELDS, columns, user_N), draws.random(num_rows) < chance_N)
        held_out_N = draws.random(num_rows) < 1 / 3
        return cls(
            whole.take(np.flatnonzero(~held_out_N)),
            whole.take(np.flatnonzero(held_out_N)),
            chance_N[held_out_N],
        )


FIELDS: Final = Fields(
    categorical=(
        Categorical(name="user", num_values=NUM_USERS), Categorical(name="item", num_values=NUM_ITEMS)
    ),
    multi=(
        Multi(name="genre", num_values=NUM_GENRES), Multi(name="history", num_values=NUM_ITEMS, like="item")
    ),
    dense=("price",),
)  # fmt: skip
