"""An epoch of SASRec beside RecTools' SASRec: the same batch, dimension, length, loss and one thread, in processor seconds.

An epoch is a fit of three less a fit of one, halved, so that what is done once counts for neither. RecTools is installed by pip, at run
time, into an environment under benchmarks/out that borrows this one's torch; it is no dependency of Tastemaker.
"""

import os
import subprocess
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from turns import Effort, Part, column, ratios, shown, turns

PEERS = Path(__file__).parent / "out" / "venv-sequences"
REQUIREMENTS = ("rectools==0.17.0", "pytorch-lightning==2.6.6")
TARGET = 0.5


def sasrec(effort: Effort) -> Part:
    """ML-1M's newest 200 items of each user, or some of the users in a quick run."""
    from reproduce_data import ratings

    from tastemaker.models.log import Log

    found = ratings("ml-1m").core(5)
    log = found.log()
    kept = log.user_N < log.num_users // effort.divide
    some = Log.of(
        log.user_N[kept], log.item_N[kept], num_users=log.num_users, num_items=log.num_items,
        timestamp_ms_N=np.arange(int(kept.sum())),
    )  # fmt: skip
    file = PEERS.parent / "sequences.npz"
    file.parent.mkdir(exist_ok=True)
    np.savez(file, user=some.user_N, item=some.item_N, order=some.timestamp_ms_N)
    python = peer_python()
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "tastemaker": lambda: _epoch(lambda epochs: _ours(some, epochs)),
        "RecTools": lambda: _epoch(lambda epochs: _theirs(python, file, epochs)),
    }
    measured = turns(1 if effort.divide > 1 else effort.turns, jobs)
    over = ratios(column(measured["tastemaker"], "seconds"), column(measured["RecTools"], "seconds"))
    users = len(np.unique(some.user_N))
    part = Part(
        f"SASRec, one negative, dim 64, length 200, batch 128, one thread, {users:,} users of ML-1M",
        ("whose", "CPU s of an epoch", "ratio"),
    )
    part.rows += [
        ("tastemaker", shown(column(measured["tastemaker"], "seconds")), shown(over, 2)),
        ("RecTools", shown(column(measured["RecTools"], "seconds")), ""),
    ]
    part.target("epoch of SASRec over RecTools', median", sorted(over)[len(over) // 2], TARGET, "lower")
    part.figures["ratios"] = over
    return part


def peer_python() -> Path:
    """The Python of an environment that holds the peer, made where it is not there yet."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "made").exists():
        venv.create(PEERS, with_pip=True, clear=True)
        packages = next(PEERS.glob("lib/python*/site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        (PEERS / "made").touch()
    return python


def _epoch(fit: Callable[[int], float]) -> dict[str, float]:
    return {"seconds": (fit(3) - fit(1)) / 2}


def _ours(log: object, epochs: int) -> float:
    import torch

    from tastemaker.models.sequence.sasrec import SasRec

    torch.set_num_threads(1)
    loss = {"kind": "bce", "num_negatives": 1}
    fit = {"epochs": epochs, "patience": None, "batch_size": 128}
    settings = {"dim": 64, "max_length": 200, "stretches": "newest", "dropout": 0.2, "loss": loss, "fit": fit}
    config = SasRec.Config.parse(settings, "a benchmark")
    began = time.process_time()
    SasRec.fit(log, config)  # type: ignore[arg-type]
    return time.process_time() - began


def _theirs(python: Path, file: Path, epochs: int) -> float:
    command = [
        str(python),
        str(Path(__file__).with_name("models_sequences_peers.py")),
        str(file),
        str(epochs),
    ]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=alone)
    return float(done.stdout.splitlines()[-1])
