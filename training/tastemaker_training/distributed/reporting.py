"""What runs on the ranks around a training loop: taking tasks, and telling the driver.

Imports Ray: only after `start_ray`, or in a worker.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import ray.train
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from tastemaker.errors import TastemakerError
from tastemaker.home import write_json
from tastemaker_training.distributed.exchange import ABORT, FAULT, STOP, read_curves

_POLL_SECONDS = 0.1
_task = 0


class CurveWriter(UserCallback):
    """Appends what rank 0 reports to a file of JSON lines. Runs beside the driver, in the controller's process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """Called by Ray once all ranks have reported."""
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics[0]) + "\n")


class Abortable(ControllerCallback):
    """Ends the controller's process, and with it the ranks, once `folder` holds `abort`.

    The driver has no handle of the controller, which Ray starts, and Ray's own Ctrl-C works in a main thread alone.
    """

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/{ABORT}"

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ARG002
        """Called by Ray in the controller's process."""
        threading.Thread(target=self._watch, daemon=True, name="abort").start()

    def _watch(self) -> None:
        while not os.path.exists(self.path):
            time.sleep(_POLL_SECONDS)
        os._exit(1)


def run_tasks(config: dict[str, Any]) -> None:
    """Does the tasks `0.json`, `1.json`, … of a folder as they appear, until it holds `stop` and no further task.

    Args:
        config: `folder`, and `preload`: modules to import meanwhile.
    """
    global _task  # noqa: PLW0603 (one task at a time in a rank's process)
    for module in config["preload"]:
        import_module(module)
    folder = Path(config["folder"])
    threading.Thread(target=_end_with, args=(folder,), daemon=True, name="left over").start()
    _task = sum("done" in report for report in read_curves(folder))  # of ranks that were here before
    while True:
        path = folder / f"{_task}.json"
        stopped = (folder / STOP).exists()  # looked for first: a task that was written before it is done
        if path.exists():
            _do(json.loads(path.read_text(encoding="utf-8")), folder)
            report_progress({"done": True})
            _task += 1
        elif stopped:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _end_with(folder: Path) -> None:
    """Ends this process once the folder is gone: whoever trains here next has removed what a killed driver left."""
    while folder.exists():
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _do(task: dict[str, Any], folder: Path) -> None:
    """Runs a task's loop. An error of ours is left for the driver, which ends all: another try would fail alike."""
    module, function = task["loop"].split(":")
    try:
        getattr(import_module(module), function)(task["config"])
    except TastemakerError as error:
        fault = {"kind": type(error).__name__, "what": error.what, "mend": error.mend}
        words = {"value": error.value, "limit": error.limit}
        plain = {key: v if isinstance(v, str | int | float | None) else str(v) for key, v in words.items()}
        write_json(folder / FAULT, fault | plain)
        threading.Event().wait()


def rank_and_size() -> tuple[int, int]:
    """This rank, and how many there are."""
    context = ray.train.get_context()
    return int(context.get_world_rank()), int(context.get_world_size())


def report_progress(metrics: Mapping[str, Any]) -> None:
    """Reports numbers to the driver. Every rank must call it; rank 0's count."""
    ray.train.report({"task": _task, **metrics})
