"""Runs a test's own file as the ranks of a gloo group, each in a process of its own, on 127.0.0.1 and a free port."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tastemaker.runtime import free_port

SECONDS = 180


def run_ranks(file: str, num_ranks: int, task: str, **arguments: Any) -> None:
    """Has every rank call `task` of the file that ends in `main(globals())`; fails with a rank's output."""
    text, port = json.dumps(arguments, default=str), str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", file, task, str(rank), str(num_ranks), port, text],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=SECONDS)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)


def main(tasks: dict[str, Callable[..., None]]) -> None:
    """What a rank's process runs: `task(**arguments)` within the group."""
    import torch
    import torch.distributed as dist

    task, rank, num_ranks, port, text = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": num_ranks}
    dist.init_process_group("gloo", rank=int(rank), world_size=int(num_ranks))
    tasks[task](**json.loads(text))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's thread may release the last tensor while Python ends, which aborts the process
