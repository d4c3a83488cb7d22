"""Gauges of processes that were killed: prometheus_client's multiprocess mode goes on adding them up."""

import os
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.multiprocess import mark_process_dead


def forget_dead_gauges() -> None:
    """Takes the lag and the partitions of processes that were killed out of the sums over those that live."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            with suppress(FileNotFoundError):  # another process forgets it as well
                mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
