"""MLflow's runs behind no version that stays."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tastemaker.home import Home
from tastemaker.registry.client import Version
from tastemaker.registry.forgetting import EndedRun
from tastemaker.retention.gone import Gone, Limits

RUN_RECORD = "run.json"
"""Of a training's folder below `checkpoints/runs/`; it names the training's MLflow run."""


def doomed_runs(
    runs: Sequence[EndedRun], left: Sequence[Version], publishable: frozenset[str], limits: Limits
) -> list[Gone]:
    """Runs that ended long ago, oldest first; none unless `retention.run_days` is set.

    A run stays with whatever it is nested in, and the other way round.

    Args:
        runs: That have ended.
        left: The versions that stay: their runs stay, and those of their promotions.
        publishable: Ids of runs whose training can still be published.
        limits: How long runs are kept.
    """
    days = limits.settings.run_days
    if days is None:
        return []
    numbers = {version.number for version in left}
    used = {version.run_id for version in left} | publishable
    since = limits.since(days)
    kept = {run.id for run in runs if run.id in used or run.version in numbers or run.ended >= since}
    known = {run.id for run in runs}
    families = {run.parent for run in runs if run.parent is not None and run.id in kept}
    families |= {run.parent for run in runs if run.parent is not None and run.parent not in known}
    stays = {run.id for run in runs if run.id in kept | families or run.parent in kept | families}
    why = f"ended over {days} days ago, and no version that stays is of it"
    return [
        Gone("run", run.id, why) for run in sorted(runs, key=lambda run: run.ended) if run.id not in stays
    ]


def publishable_runs(home: Home, catalogue: str) -> dict[str, str]:
    """MLflow run -> folder of the training, of a catalogue's trainings that the home keeps."""
    return dict(_records(home / "checkpoints" / "runs" / catalogue))


def _records(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob(f"*/{RUN_RECORD}")):
        try:
            yield str(json.loads(path.read_text(encoding="utf-8"))["mlflow_run_id"]), path.parent.name
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a training that is ending: its run is young
