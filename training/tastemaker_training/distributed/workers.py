"""The workers of Ray Train: started once, given one training loop after another. Not for what a loop does.

Starting them takes longer than a small training, and keeps the driver's own core free meanwhile. So the run of
TorchTrainer here is a loop over tasks: the driver writes them as files, every rank takes them in order, and
`reporting` is how a task speaks to the driver. When a rank is lost Ray Train starts all of them again; they pass over
the tasks that are done, and a training loop goes on from its last checkpoint.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tastemaker import errors
from tastemaker.config import Settings
from tastemaker.context import lifetime
from tastemaker.errors import MissingExtraError, TastemakerError, TrainingError, UsageError
from tastemaker.home import Home, write_bytes, write_json
from tastemaker.runtime import open_ray, prepare_ray
from tastemaker.terminal import errors as terminal_errors
from tastemaker.terminal import print_table, progress
from tastemaker_training.distributed.exchange import ABORT, CURVES, FAULT, STOP, read_curves

_POLL_SECONDS = 0.2
_STOP_SECONDS = 30.0
_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how often the end of the loop is looked for
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more, of use on spot nodes only
}


def check_workers(num_workers: int, settings: Settings) -> None:
    """Lets pass a number of workers that this machine or the named cluster can run.

    Raises:
        UsageError: There are fewer cores, or none was asked for.
    """
    if num_workers < 1:
        raise UsageError("--workers", value=num_workers, limit="at least 1", mend="ask for one or more")
    cores = os.cpu_count() or 1
    if settings.ray.address is None and num_workers > cores:
        raise UsageError(
            "--workers",
            value=num_workers,
            limit=f"at most the {cores} cores of this machine",
            mend="ask for fewer",
        )


def start_ray(settings: Settings, home: Home) -> None:
    """Joins this process's Ray session, or starts the one that the settings name until the command ends."""
    arguments = prepare_ray(settings, home)
    for key, value in _TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("training needs Ray", mend="pip install 'tastemaker[train]'") from error
    open_ray(ray, arguments, lifetime)


def check_cluster(num_workers: int) -> None:
    """Lets pass a number of workers that the live nodes of the joined session have CPUs for.

    Raises:
        TrainingError: They have not: Ray would wait for them without a word.
    """
    import ray

    live = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    if num_workers > live:
        raise TrainingError(
            "workers", value=num_workers, limit=f"at most {live:g}, the CPUs of the cluster's live nodes",
            mend="ask for fewer, or bring the lost nodes back",
        )  # fmt: skip


def remove_left_over(home: Home) -> None:
    """Removes what workers left whose driver was killed, and thereby ends those that have not noticed yet.

    Nobody else may train in this home meanwhile.
    """
    for folder in (home / "checkpoints").glob("workers-*"):
        shutil.rmtree(folder, ignore_errors=True)


class Workers:
    """Ranks that train. They start with the first `start` or `submit`, and stop at the block's end.

    Args:
        settings: Where Ray is.
        home: Its `checkpoints` must be seen by all workers.
        num_workers: Ranks; each has one core.
        preload: Modules that ranks import while they have nothing else to do.
    """

    def __init__(
        self, settings: Settings, home: Home, num_workers: int, preload: tuple[str, ...] = ()
    ) -> None:
        self._settings, self._home, self._num_workers, self._preload = settings, home, num_workers, preload
        self._folder = home / "checkpoints" / f"workers-{uuid4().hex[:12]}"
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._num_tasks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            write_bytes(self._folder / (STOP if error is None else ABORT), b"")
            self._thread.join(_STOP_SECONDS)
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the ranks and does not wait for them; once started nothing more happens."""
        if self._thread is None:
            start_ray(self._settings, self._home)
            check_cluster(self._num_workers)
            self._folder.mkdir(parents=True)
            self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Lets the ranks end once they have done what was submitted; does not wait for them."""
        if self._thread is not None:
            write_bytes(self._folder / STOP, b"")

    def submit(self, loop: str, config: dict[str, Any], folder: Path) -> "Task":
        """Hands a training loop to the ranks.

        Args:
            loop: `module:function`, imported by the ranks alone: what a loop needs is heavy.
            config: The function's argument; JSON values. `folder` is added to it.
            folder: Where it writes what it makes; its curve goes there too once it is done.
        """
        self.start()
        task = Task(self, self._num_tasks, folder)
        config = config | {"folder": str(folder)}
        write_json(self._folder / f"{task.number}.json", {"loop": loop, "config": config})
        self._num_tasks += 1
        return task

    def _run(self) -> None:
        """Ray Train's run of all tasks, in a thread: there Ray leaves Ctrl-C to us."""
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        from tastemaker_training.distributed.reporting import Abortable, CurveWriter, run_tasks

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        told = self._settings.training
        gpu = told.device == "cuda"
        trainer = TorchTrainer(
            run_tasks,
            train_loop_config={"folder": str(self._folder), "preload": self._preload},
            scaling_config=ray.train.ScalingConfig(
                num_workers=self._num_workers, use_gpu=gpu, resources_per_worker={"CPU": 1, "GPU": int(gpu)}
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=ray.train.RunConfig(
                name=self._folder.name,
                storage_path=str(self._folder.parent),
                failure_config=ray.train.FailureConfig(max_failures=told.max_failures),
                callbacks=[CurveWriter(str(self._folder / CURVES)), Abortable(str(self._folder))],
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 (whoever waits for a task raises it)
            self._failure = error

    def reports(self, number: int) -> list[dict[str, Any]]:
        """What rank 0 has reported of a task so far.

        Raises:
            TrainingError: The ranks are gone; or the error of ours that one of them raised.
        """
        alive = self._thread is not None and self._thread.is_alive()
        found = [report for report in read_curves(self._folder) if report["task"] == number]
        if (self._folder / FAULT).exists():
            raise _fault(json.loads((self._folder / FAULT).read_text(encoding="utf-8")))
        if not alive and not _is_done(found):
            raise _cause(
                self._failure or TrainingError("the training workers ended early")
            ) from self._failure
        return _latest(found)


@dataclass(frozen=True)
class Task:
    """A training loop that was handed to the ranks."""

    workers: Workers
    number: int
    folder: Path

    def wait(self, description: str, total: int) -> None:
        """Waits for the end, under a progress bar, and writes the curve into the task's folder.

        Args:
            description: Of the progress bar.
            total: Reports to expect.

        Raises:
            TastemakerError: The loop raised it.
            TrainingError: A worker failed otherwise; carries the last line of its error.
        """
        seen = num_plans = 0
        with progress(description, total) as advance:
            while not _is_done(reports := self.workers.reports(self.number)):
                plans = [report for report in reports if "plan" in report]
                for report in plans[num_plans:]:
                    print_plan(report)
                num_plans = len(plans)
                advance(_num_epochs(reports) - seen)
                seen = _num_epochs(reports)
                time.sleep(_POLL_SECONDS)
        lines = [json.dumps({k: v for k, v in report.items() if k != "task"}) for report in reports[:-1]]
        write_bytes(self.folder / CURVES, "".join(f"{line}\n" for line in lines).encode())


def _is_done(reports: list[dict[str, Any]]) -> bool:
    return bool(reports) and "done" in reports[-1]


def _num_epochs(reports: list[dict[str, Any]]) -> int:
    return sum("epoch" in report for report in reports)


def _latest(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each epoch of each fit once: a loop that goes on from a checkpoint reports what went before again."""
    kinds = ("fit", "epoch")
    found = {(*map(report.get, kinds), "plan" in report, "done" in report): report for report in reports}
    return list(found.values())


def print_plan(report: Mapping[str, Any]) -> None:
    """Where the tables lie on the ranks, as a table on stderr: before the first step, when it can still be stopped."""
    rows = [
        (
            s["table"],
            s["placement"],
            s["rank"],
            f"{s['num_rows']:,}",
            s["dim"],
            f"{s['num_bytes'] / 2**20:.2f}",
        )
        for s in report["plan"]
    ]
    names = ["table", "placement", "rank", "rows", "columns", "MiB with optimizer state"]
    print_table(f"Tables of fit {report.get('fit', 'ranker')}", names, rows, to=terminal_errors)


def _fault(fault: dict[str, Any]) -> TastemakerError:
    """The error of ours that a rank left in a file: it would fail again, so Ray Train is not told of it."""
    kind = getattr(errors, fault.pop("kind"), TrainingError)
    assert issubclass(kind, TastemakerError)
    return kind(fault.pop("what"), **fault)


def _cause(error: Exception) -> TastemakerError:
    """The error of ours that a worker raised, else one that carries the worker's own words."""
    for failure in getattr(error, "worker_failures", {0: error}).values():
        found: BaseException | None = failure
        while found is not None:
            if isinstance(found, TastemakerError):
                return found
            found = getattr(found, "cause", None) or found.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        "a training worker failed", value=lines[-1] if lines else None, mend="see the home's logs"
    )
