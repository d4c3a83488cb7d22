"""RecTools' SASRec, run by the Python of an environment that holds it: `python models_rectools.py FILE EPOCHS`.

FILE is an npz of `user`, `item` and `order`. Prints the processor seconds of a fit, its preparation of the data included.
"""

import json
import logging
import sys
import time
import warnings

import numpy as np
import pandas as pd
import torch

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
torch.set_num_threads(1)

from pytorch_lightning import Trainer  # noqa: E402 (warnings of imports)
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402


def trainer(epochs: int) -> Trainer:
    return Trainer(
        max_epochs=epochs, min_epochs=epochs, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def main(file: str, epochs: int) -> None:
    rows = np.load(file)
    table = pd.DataFrame({Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Weight: 1.0})
    table[Columns.Datetime] = pd.to_datetime(rows["order"], unit="s")
    dataset = Dataset.construct(table)
    model = SASRecModel(
        n_blocks=2, n_heads=1, n_factors=64, dropout_rate=0.2, session_max_len=200, batch_size=128,
        loss="BCE", n_negatives=1, lr=1e-3, dataloader_num_workers=0, train_min_user_interactions=2,
        epochs=epochs, get_trainer_func=lambda: trainer(epochs),
    )  # fmt: skip
    began = time.process_time()
    model.fit(dataset)
    print(json.dumps(time.process_time() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
