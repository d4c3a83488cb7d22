"""RecBole's own training loop, run by the Python of an environment that holds it: `python models_recbole.py JOB`.

JOB is a JSON file of `model`, `dataset`, `epochs` and `settings`. Prints the processor seconds of each epoch; reading and laying out
the data counts for none.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

from recbole.config import Config  # noqa: E402 (warnings of imports)
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

_QUIET = {"use_gpu": False, "gpu_id": "", "state": "ERROR", "show_progress": False, "reproducibility": False}


def main(job: Path) -> None:
    asked = json.loads(job.read_text())
    os.chdir(job.parent)  # it writes logs where it is
    sys.argv = sys.argv[:1]  # RecBole reads settings from it
    config = Config(model=asked["model"], dataset=asked["dataset"], config_dict=_QUIET | asked["settings"])
    init_seed(0, reproducibility=False)
    train, _, _ = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    seconds = []
    for epoch in range(asked["epochs"]):
        began = time.process_time()
        trainer._train_epoch(train, epoch, show_progress=False)
        seconds.append(time.process_time() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
