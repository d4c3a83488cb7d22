"""An epoch of DeepFM and of two towers beside RecBole's: the same rows, fields, batch, widths and one thread, in processor seconds.

Rows and fields are those of the click models' reproduction, ML-1M without ratings of 3. RecBole's towers are its DSSM.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from models_epochs import HEADER, compared, epoch_seconds, recbole_seconds, write_atomic
from turns import Effort, Part, column, turns

BATCH: Final = 4096
DIM: Final = 16
_OF_USER, _OF_ITEM = ("age", "gender", "occupation"), ("year",)


def deepfm(effort: Effort) -> Part:
    """Three layers of 256 over seven fields."""
    ours = {"hidden": [256, 256, 256], "dropout": 0.1}
    return _beside("DeepFM", "deepfm", ours, "DeepFM", effort)


def two_tower(effort: Effort) -> Part:
    """A tower of 256, 256, 256 over the user's fields, and one over the item's."""
    ours = {
        "query_fields": ["user", *_OF_USER], "item_fields": ["item", "genre", *_OF_ITEM],
        "hidden": [256, 256], "vector_dim": 256, "dropout": 0.1,
    }  # fmt: skip
    return _beside("Two towers", "dssm", ours, "DSSM", effort)


def _beside(title: str, kind: str, ours: Mapping[str, Any], theirs: str, effort: Effort) -> Part:
    from reproduce_ctr import rows, split

    from tastemaker.models.ctr.kinds import fit

    learned, name = split(0).learned, "ml-1m-clicks"
    if effort.divide > 1:
        learned = learned.take(np.arange(len(learned) // effort.divide))
    # RecBole learns from what its own split leaves: as many rows as ours.
    _write_clicks(name, rows().take(np.arange(len(learned) * 10 // 8)))

    def fitted(epochs: int) -> float:
        settings = {**ours, "dim": DIM, "fit": {"epochs": epochs, "batch_size": BATCH}}
        began = time.process_time()
        fit(kind, learned, settings)
        return time.process_time() - began

    settings = {
        "embedding_size": DIM, "mlp_hidden_size": [256, 256, 256], "dropout_prob": 0.1, "train_batch_size": BATCH,
        "load_col": {
            "inter": ["user_id", "item_id", "label"], "user": ["user_id", *_OF_USER],
            "item": ["item_id", *_OF_ITEM, "genre"],
        },
        "train_neg_sample_args": None, "metrics": ["AUC"], "valid_metric": "AUC",
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "none", "mode": "labeled"},
    }  # fmt: skip
    fitted(1)
    found = turns(
        1 if effort.divide > 1 else effort.turns,
        {
            "tastemaker": lambda: {"seconds": epoch_seconds(fitted)},
            "RecBole": lambda: {"seconds": recbole_seconds(name, theirs, settings, 2)[-1]},
        },
    )
    return compared(
        Part(f"{title}: {len(learned):,} rows, embeddings of {DIM}, batch {BATCH}, one thread", HEADER),
        f"epoch of {title}", column(found["tastemaker"], "seconds"), "RecBole", column(found["RecBole"], "seconds"),
    )  # fmt: skip


def _write_clicks(name: str, labelled: Any) -> None:
    """Rows as RecBole's three files: who did what, users, items."""
    rows = labelled.rows
    one = {field.name: rows.categorical_NC[:, at] for at, field in enumerate(rows.fields.categorical)}
    write_atomic(
        name, "inter",
        {"user_id:token": one["user"], "item_id:token": one["item"], "label:float": labelled.label_N.astype(int)},
    )  # fmt: skip
    user, of_user = np.unique(one["user"], return_index=True)
    write_atomic(
        name,
        "user",
        {"user_id:token": user} | {f"{field}:token": one[field][of_user] for field in _OF_USER},
    )
    item, of_item = np.unique(one["item"], return_index=True)
    genres = rows.multi["genre"]
    texts = [
        " ".join(map(str, genres.value_V[genres.offsets[row] : genres.offsets[row + 1]])) for row in of_item
    ]
    of_items = {f"{field}:token": one[field][of_item] for field in _OF_ITEM}
    write_atomic(name, "item", {"item_id:token": item, **of_items, "genre:token_seq": texts})
