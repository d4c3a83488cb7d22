"""What runs on the ranks around a training loop: taking tasks, and telling the driver.

Imports Ray: only after `start_ray`, or in a worker.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from tastemaker_training.workers import ABORT, STOP

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
    while True:
        path = folder / f"{_task}.json"
        stopped = (folder / STOP).exists()  # looked for first: a task that was written before it is done
        if path.exists():
            task = json.loads(path.read_text(encoding="utf-8"))
            module, function = task["loop"].split(":")
            getattr(import_module(module), function)(task["config"])
            report_progress({"done": True})
            _task += 1
        elif stopped:
            return
        else:
            time.sleep(_POLL_SECONDS)


def rank_and_size() -> tuple[int, int]:
    """This rank, and how many there are."""
    context = ray.train.get_context()
    return int(context.get_world_rank()), int(context.get_world_size())


def report_progress(metrics: Mapping[str, Any]) -> None:
    """Reports numbers to the driver. Every rank must call it; rank 0's count."""
    ray.train.report({"task": _task, **metrics})


def report_files(name: str, metrics: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Stores what `write(folder)` writes on rank 0 as the task's folder `name`. Every rank must call it."""
    folder_name = f"{_task}-{name}"
    report = {"task": _task, "name": name, "files": folder_name, **metrics}
    if rank_and_size()[0] > 0:
        ray.train.report(report, checkpoint_dir_name=folder_name)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        ray.train.report(report, Checkpoint.from_directory(folder), checkpoint_dir_name=folder_name)
