"""Runs a test's own file as the ranks of a gloo group, each in a process of its own. They meet by a file."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

SECONDS = 180
PARENT = Path(__file__).with_name("rank_parent.py")


def run_ranks(file: str, num_ranks: int, task: str, **arguments: Any) -> None:
    """Has every rank call `task` of the file that ends in `main(globals())`; fails with a rank's output."""
    with tempfile.TemporaryDirectory() as folder:
        text, meeting = json.dumps(arguments, default=str), f"{folder}/meeting"
        outputs = [Path(folder) / str(rank) for rank in range(num_ranks)]
        ranks = [[file, task, str(rank), str(num_ranks), meeting, text] for rank in range(num_ranks)]
        codes = _run(list(zip(ranks, map(str, outputs), strict=True)))
        told = "\n".join(output.read_text(errors="replace") for output in outputs)
    assert codes == [0] * num_ranks, told


def _run(ranks: list[tuple[list[str], str]]) -> list[int]:
    """Their exit codes; those that take longer than `SECONDS` are killed."""
    if _parent().poll() is not None:
        _parent.cache_clear()
    parent, pids = _parent(), list[int]()
    try:
        _ask(parent, ranks)
        pids += _answer(parent)
        late = threading.Timer(SECONDS, _kill, [pids])
        late.start()
        try:
            return _answer(parent)
        finally:
            late.cancel()
    except BaseException:
        _kill(pids)
        _parent.cache_clear()  # it has ended, or its answer is still to come
        parent.kill()
        parent.wait()
        raise


def _ask(parent: "subprocess.Popen[str]", ranks: list[tuple[list[str], str]]) -> None:
    assert parent.stdin is not None
    parent.stdin.write(f"{json.dumps(ranks)}\n")
    parent.stdin.flush()


def _answer(parent: "subprocess.Popen[str]") -> list[int]:
    assert parent.stdout is not None
    line = parent.stdout.readline()
    if not line:
        raise RuntimeError(f"the process that forks ranks ended with {parent.wait()}")
    found: list[int] = json.loads(line)
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@cache
def _parent() -> "subprocess.Popen[str]":
    """The process that forks ranks, one for this session."""
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(PARENT)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(_end, parent)
    return parent


def _end(parent: "subprocess.Popen[str]") -> None:
    if parent.poll() is None:
        parent.communicate()


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
