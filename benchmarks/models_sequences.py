"""An epoch of SASRec beside RecTools' and RecBole's: the same batch, dimension, length and one thread, in processor seconds.

RecTools learns as we do, from all places of a sequence at once. RecBole makes each place an example of its own, so that an epoch, each
item come next once, takes it a sequence for each: it is asked about a few users alone.
"""

import math
import time

import numpy as np
from models_epochs import HEADER, compared, epoch_seconds, recbole_seconds, rectools_seconds, write_atomic
from report import OUT
from turns import Effort, Part, column, shown, turns

from tastemaker.models.log import Log

BATCH, LENGTH, DIM, DROPOUT = 128, 200, 64, 0.2
RECBOLE_DIVIDE = 20


def sasrec(effort: Effort) -> Part:
    """ML-1M's newest 200 items of each user, or some of the users in a quick run; binary cross-entropy, one negative."""
    some = _users(effort.divide)
    file = OUT / "sequences.npz"
    file.parent.mkdir(exist_ok=True)
    np.savez(file, user=some.user_N, item=some.item_N, order=some.timestamp_ms_N)
    _ours(some, 1, "newest")
    found = turns(
        1 if effort.divide > 1 else effort.turns,
        {
            "tastemaker": lambda: {"seconds": epoch_seconds(lambda epochs: _ours(some, epochs, "newest"))},
            "RecTools": lambda: {"seconds": epoch_seconds(lambda epochs: rectools_seconds(file, epochs))},
        },
    )
    return compared(
        Part(f"SASRec, one negative, {_shape(some)}", HEADER), "epoch of SASRec",
        column(found["tastemaker"], "seconds"), "RecTools", column(found["RecTools"], "seconds"),
    )  # fmt: skip


def sasrec_recbole(effort: Effort) -> Part:
    """All items of one in twenty users, each come next once."""
    some, name = _users(RECBOLE_DIVIDE * effort.divide), "ml-1m-sequences"
    write_atomic(
        name, "inter",
        {"user_id:token": some.user_N, "item_id:token": some.item_N, "timestamp:float": some.timestamp_ms_N},
    )  # fmt: skip
    settings = {
        "hidden_size": DIM, "inner_size": DIM, "n_layers": 2, "n_heads": 1, "loss_type": "BPR",
        "hidden_dropout_prob": DROPOUT, "attn_dropout_prob": DROPOUT, "MAX_ITEM_LIST_LENGTH": LENGTH,
        "train_batch_size": BATCH, "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    }  # fmt: skip
    _ours(some, 1, "all")
    ours = epoch_seconds(lambda epochs: _ours(some, epochs, "all"))
    theirs = recbole_seconds(name, "SASRec", settings, 1)[-1]
    users = len(np.unique(some.user_N))
    places = len(some) - users
    part = Part(
        f"SASRec, one negative, {_shape(some)}, histories whole", ("whose", "CPU s of an epoch", "its steps")
    )
    part.rows = [
        ("tastemaker", shown([ours], 2), f"{math.ceil(users / BATCH):,}"),
        ("RecBole", shown([theirs]), f"{math.ceil((places - 2 * users) / BATCH):,}"),
    ]
    part.figures = {"tastemaker": ours, "RecBole": theirs, "places": places}
    part.notes.append(
        "One epoch of RecBole's, which holds each user's last two items out of it; its loss is the pairwise one. Both see each place once, but a step of "
        f"ours has all places of {BATCH} sequences and one of RecBole's {BATCH} places: what an epoch teaches is not the same, so there is no target."
    )
    return part


def _users(divide: int) -> Log:
    """ML-1M, 5-core, of the first users; times are the rows' order."""
    from reproduce_data import ratings

    log = ratings("ml-1m").core(5).log()
    kept = log.user_N < log.num_users // divide
    return Log.of(
        log.user_N[kept], log.item_N[kept], num_users=log.num_users, num_items=log.num_items,
        timestamp_ms_N=np.arange(int(kept.sum())),
    )  # fmt: skip


def _shape(log: Log) -> str:
    users = len(np.unique(log.user_N))
    return f"dim {DIM}, length {LENGTH}, batch {BATCH}, one thread, {users:,} users of ML-1M"


def _ours(log: Log, epochs: int, stretches: str) -> float:
    import torch

    from tastemaker.models.sequence.sasrec import SasRec

    torch.set_num_threads(1)
    settings = {
        "dim": DIM, "max_length": LENGTH, "stretches": stretches, "dropout": DROPOUT,
        "loss": {"kind": "bce", "num_negatives": 1},
        "fit": {"epochs": epochs, "patience": None, "batch_size": BATCH},
    }  # fmt: skip
    config = SasRec.Config.parse(settings, "a benchmark")
    began = time.process_time()
    SasRec.fit(log, config)
    return time.process_time() - began
