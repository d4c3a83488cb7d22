"""Ranks of a measured job, each in a process of its own, and what they answer.

`run` starts a script of this folder once a rank; the script hands its measurement to `answer`, which joins the ranks
in a gloo group on 127.0.0.1 and writes what was measured where `run` reads it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Measured

from tastemaker.runtime import free_port

FOLDER = Path(__file__).parent
DEADLINE_SECONDS = 600.0
_MOST_RERUNS = 3


class _CrashError(RuntimeError):
    """A signal ended a rank."""


def run(script: str, job: dict[str, Any], *, num_ranks: int = 2, threads: int = 1) -> list[Measured]:
    """What each rank measured, rank 0 first.

    A job that a signal ended is run again, and each rank's `reruns` hold what it said at its end: DDP with sparse gradients now and then
    corrupts glibc's heap (cause unknown), and that must not cost the whole run.

    Raises:
        RuntimeError: A rank failed; carries the end of its output.
    """
    reruns: list[str] = []
    while True:
        try:
            return [rank | {"reruns": reruns} for rank in _run(script, job, num_ranks, threads)]
        except _CrashError as crash:
            if len(reruns) == _MOST_RERUNS:
                raise
            reruns.append(str(crash))
            print(f"once more: {crash}", flush=True)


def _run(script: str, job: dict[str, Any], num_ranks: int, threads: int) -> list[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{rank}.json" for rank in range(num_ranks)]
        shared = os.environ | {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks), "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        ranks = [
            subprocess.Popen(
                [sys.executable, str(FOLDER / script), json.dumps(job), str(out)],
                env=shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank, out in enumerate(outs)
        ]  # fmt: skip
        try:
            _wait(ranks, script, job)
        finally:
            for rank in ranks:
                rank.kill()
        return [json.loads(out.read_text(encoding="utf-8")) for out in outs]


def _wait(ranks: list["subprocess.Popen[str]"], script: str, job: dict[str, Any]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    outputs = [rank.communicate(timeout=max(deadline - time.monotonic(), 1.0))[0] for rank in ranks]
    # Where a signal ended one rank, what the others say is of its loss.
    for rank, output in sorted(zip(ranks, outputs, strict=True), key=lambda found: found[0].returncode):
        if rank.returncode:
            kind = _CrashError if rank.returncode < 0 else RuntimeError
            raise kind(f"{script} {job} ended with {rank.returncode}:\n{output[-3000:]}")


def answer(measure: Callable[[dict[str, Any]], Measured]) -> None:
    """Runs `measure` on this rank's job, as a script's whole work."""
    import torch
    import torch.distributed as dist

    job, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    out.write_text(json.dumps(measure(job)), encoding="utf-8")
    dist.barrier()
    os._exit(0)  # gloo's thread may release the last tensor while Python ends, which aborts the process


def resident_bytes() -> int:
    """What this process holds now."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Lets the peak begin anew from what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """The most that this process has held since `forget_peak`."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
