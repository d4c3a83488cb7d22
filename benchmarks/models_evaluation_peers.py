"""What RecBole and RecTools take to evaluate: run by the Python of an environment that holds them.

`python models_evaluation_peers.py recbole FOLDER BATCH` evaluates RecBole's Pop, given the order of items in FOLDER, over the whole catalogue by
all metrics of ranking with which RecBole works; BATCH is its `eval_batch_size` in scores. `python models_evaluation_peers.py rectools FOLDER` takes
RecTools' metrics of the lists in FOLDER. Both print processor seconds of one thread, without reading and preparing the data, and what
they found, as JSON.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

warnings.filterwarnings("ignore")
KS = (10, 50)


def recbole(folder: Path, batch: int) -> dict[str, Any]:
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    import torch

    torch.set_num_threads(1)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    # Coverage, mean popularity, Gini and the tail's share raise an AttributeError in RecBole 1.2.1 (`int` has no `cpu`).
    metrics = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC", "ShannonEntropy"]
    told = {
        "data_path": str(folder), "benchmark_filename": ["train", "valid", "test"], "metrics": metrics, "topk": list(KS),
        "valid_metric": "NDCG@10", "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": "user", "mode": "full"},
        "eval_batch_size": batch, "device": "cpu", "use_gpu": False, "show_progress": False, "state": "ERROR",
        "checkpoint_dir": str(folder / "saved"), "log_wandb": False, "metric_decimal_place": 8,
    }  # fmt: skip
    sys.argv = sys.argv[:1]  # RecBole reads settings from the command line
    config = Config(model="Pop", dataset="ml", config_dict=told)
    init_seed(0, reproducibility=True)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = get_model("Pop")(config, train.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    order_I = np.load(folder / "lists.npz")["score"]
    for token, number in dataset.field2token_id["item_id"].items():
        if token != "[PAD]":
            model.item_cnt[number, 0] = int(order_I[int(token)])
    model.max_cnt = model.item_cnt.max(dim=0)[0]
    began = time.process_time()
    found = trainer.evaluate(test, load_best_model=False)
    seconds = time.process_time() - began
    return {"seconds": seconds, "metrics": {name: float(value) for name, value in found.items()}}


def rectools(folder: Path) -> dict[str, Any]:
    import pandas as pd
    from rectools import Columns
    from rectools import metrics as of

    lists = np.load(folder / "lists.npz")
    ranked_UK, tag_IG = lists["ranked"], lists["tags"]
    users, depth = ranked_UK.shape
    reco = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(users), depth),
            Columns.Item: ranked_UK.ravel(),
            Columns.Rank: np.tile(np.arange(1, depth + 1), users),
        }
    )
    past, test = (
        pd.DataFrame({Columns.User: lists[f"{name}_user"], Columns.Item: lists[f"{name}_item"]})
        for name in ("train", "test")
    )
    far = of.PairwiseHammingDistanceCalculator(pd.DataFrame(tag_IG, index=np.arange(len(tag_IG))))
    asked: dict[str, Any] = {}
    for k in KS:
        asked |= {
            f"precision@{k}": of.Precision(k=k), f"recall@{k}": of.Recall(k=k), f"ndcg@{k}": of.NDCG(k=k),
            f"map@{k}": of.MAP(k=k), f"mrr@{k}": of.MRR(k=k), f"hit_rate@{k}": of.HitRate(k=k),
        }  # fmt: skip
    k = KS[0]
    asked |= {
        "novelty": of.MeanInvUserFreq(k=k), "serendipity": of.Serendipity(k=k), "diversity": of.IntraListDiversity(k=k, distance_calculator=far),
        "popularity": of.AvgRecPopularity(k=k, normalize=True), "coverage": of.CatalogCoverage(k=k, normalize=True),
    }  # fmt: skip
    began = time.process_time()
    found = of.calc_metrics(
        asked, reco, interactions=test, prev_interactions=past, catalog=np.arange(len(tag_IG))
    )
    seconds = time.process_time() - began
    return {"seconds": seconds, "metrics": {name: float(value) for name, value in found.items()}}


if __name__ == "__main__":
    work = Path(sys.argv[2])
    print(json.dumps(recbole(work, int(sys.argv[3])) if sys.argv[1] == "recbole" else rectools(work)))
