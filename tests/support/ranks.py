"""Runs a test's own file as the ranks of a gloo group, each in a process of its own. They meet by a file."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

SECONDS = 180


def run_ranks(file: str, num_ranks: int, task: str, **arguments: Any) -> None:
    """Has every rank call `task` of the file that ends in `main(globals())`; fails with a rank's output."""
    with tempfile.TemporaryDirectory() as folder:
        text, meeting = json.dumps(arguments, default=str), f"{folder}/meeting"
        ranks = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", file, task, str(rank), str(num_ranks), meeting, text],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(num_ranks)
        ]  # fmt: skip
        try:
            outputs = [rank.communicate(timeout=SECONDS)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.communicate()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)


def main(tasks: dict[str, Callable[..., None]]) -> None:
    """What a rank's process runs: `task(**arguments)` within the group."""
    import torch
    import torch.distributed as dist

    task, rank, num_ranks, meeting, text = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ["LOCAL_WORLD_SIZE"] = num_ranks
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(num_ranks)
    )
    tasks[task](**json.loads(text))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's thread may release the last tensor while Python ends, which aborts the process
