"""How the lists that were shown lately spread over the catalogue.

Shape letters: B lists, K slots, I items of the catalogue.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.item_archive import current_items
from tastemaker.data.schema import read_imported
from tastemaker.errors import DataError
from tastemaker.evaluation.metrics import PADDING, coverage, gini, novelty
from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.home import Home
from tastemaker.types import Int32, Int64

MOST_LISTS: Final = 20_000
HEAD_SHARE: Final = 0.01
"""Of the catalogue: the items with the most users, whose share of the slots `popular-share` is."""
_READ: Final = pa.schema(
    [
        DECISION_SCHEMA.field(name)
        for name in ("decision_id", "timestamp_ms", "received_ms", "item_ids", "shadow_of")
    ]
)


def measure_exposure(home: Home, catalogue: str, since_ms: int, until_ms: int) -> dict[str, float]:
    """`coverage`, `gini` and `popular-share` (ratios), `novelty` (bits), `reach` (items); empty where nothing was shown.

    Of the newest `MOST_LISTS` lists. Popularity is how many users of the import have an item.

    Args:
        home: Holds the archive and the import.
        catalogue: Whose answers.
        since_ms: Answers from then on.
        until_ms: Answers before then.

    Raises:
        DataError: Nothing was imported, or a file cannot be read.
    """
    lists = _lists(home, catalogue, since_ms, until_ms)
    if not len(lists):
        return {}
    interactions, _ = read_imported(home, catalogue)
    item_ids: Any = current_items(home, catalogue)["item_id"].combine_chunks()
    ranked_BK = _ranked(lists, item_ids)
    num_users_I, num_users = _popularity(interactions, item_ids)
    if not (ranked_BK != PADDING).any():
        raise DataError(
            "no item that was shown lately is in the catalogue", mend="import the catalogue that is served"
        )
    head_I = np.argsort(-num_users_I, kind="stable")[: max(1, round(HEAD_SHARE * len(item_ids)))]
    return {
        "coverage": coverage(ranked_BK, len(item_ids)),
        "gini": gini(ranked_BK, len(item_ids)),
        "novelty": float(np.nanmean(novelty(ranked_BK, num_users_I, num_users))),
        "popular-share": float(np.isin(ranked_BK[ranked_BK != PADDING], head_I).mean()),
        "reach": float(len(np.unique(ranked_BK[ranked_BK != PADDING]))),
    }


def _lists(home: Home, catalogue: str, since_ms: int, until_ms: int) -> Any:
    span = (pc.field("timestamp_ms") >= since_ms) & (pc.field("timestamp_ms") < until_ms)
    table = read_days(home / "decisions" / catalogue, _READ, "decision_id", span)
    table = table.filter(pc.is_null(table["shadow_of"]))
    lengths: Any = pc.list_value_length(table["item_ids"])
    table = table.filter(pc.greater(pc.fill_null(lengths, 0), pa.scalar(0)))
    return table["item_ids"][-MOST_LISTS:] if len(table) else table["item_ids"]


def _ranked(lists: Any, item_ids: Any) -> Int32:
    """(B, K) rows of the catalogue, `PADDING` behind each list's end and for items that are gone."""
    lengths_B = pc.list_value_length(lists).to_numpy()
    row_N = pc.fill_null(pc.index_in(pc.list_flatten(lists), value_set=item_ids), PADDING).to_numpy()
    ranked_BK = np.full((len(lists), int(lengths_B.max())), PADDING, np.int32)
    ranked_BK[np.arange(ranked_BK.shape[1]) < lengths_B[:, None]] = row_N
    return ranked_BK


def _popularity(interactions: pa.Table, item_ids: Any) -> tuple[Int64, int]:
    pairs = interactions.select(["user_id", "item_id"]).group_by(["user_id", "item_id"]).aggregate([])
    row_N = pc.index_in(pairs["item_id"].combine_chunks(), value_set=item_ids)
    counts_I = np.bincount(row_N.drop_null().to_numpy(), minlength=len(item_ids))
    return counts_I.astype(np.int64), max(1, len(pairs["user_id"].unique()))
