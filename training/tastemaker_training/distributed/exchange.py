"""The files through which the driver of a training and its ranks speak. Who writes them when: `workers` and `reporting`."""

import json
from pathlib import Path
from typing import Any, Final

CURVES: Final = "curves.jsonl"
"""What rank 0 reported, a line each."""
STOP: Final = "stop"
"""Ranks end once they have done what was submitted."""
ABORT: Final = "abort"
"""All end at once."""
FAULT: Final = "fault.json"
"""An error of ours that a rank raised."""


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """What rank 0 of the training in `folder` reported, in order."""
    try:
        lines = (folder / CURVES).read_text(encoding="utf-8").split("\n")[:-1]  # an unfinished line waits
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
