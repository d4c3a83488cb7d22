"""MLflow's runs behind no version that stays."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tastemaker.home import Home
from tastemaker.registry.forgetting import EndedRun
from tastemaker.registry.versions import Version
from tastemaker.retention.gone import Gone, Limits

RUN_RECORD = "run.json"
"""Of a training's folder below `checkpoints/runs/`; it names the training's MLflow run."""


def doomed_runs(
    runs: Sequence[EndedRun], left: Sequence[Version], publishable: frozenset[str], limits: Limits
) -> list[Gone]:
    """Runs that ended long ago, oldest first; none unless `retention.run_days` is set.

    A run stays with whatever it is nested in, however deep, and the other way round.

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
    roots = _roots(runs)
    stays = {roots[run.id] for run in runs if run.id in kept} | (set(roots.values()) - roots.keys())
    why = f"ended over {days} days ago, and no version that stays is of it"
    oldest_first = sorted(runs, key=lambda run: run.ended)
    return [Gone("run", run.id, why) for run in oldest_first if roots[run.id] not in stays]


def _roots(runs: Sequence[EndedRun]) -> dict[str, str]:
    """Of each run the outermost that it is nested in, itself where in none; one that has not ended is the last that is known."""
    parents = {run.id: run.parent for run in runs}
    roots = {}
    for run in runs:
        root, seen = run.id, {run.id}
        while (parent := parents.get(root)) is not None and parent not in seen:
            root = parent
            seen.add(root)
        roots[run.id] = root
    return roots


def publishable_runs(home: Home, catalogue: str) -> dict[str, str]:
    """MLflow run -> folder of the training, of a catalogue's trainings that the home keeps."""
    return dict(_records(home / "checkpoints" / "runs" / catalogue))


def _records(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob(f"*/{RUN_RECORD}")):
        try:
            yield str(json.loads(path.read_text(encoding="utf-8"))["mlflow_run_id"]), path.parent.name
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a training that is ending: its run is young
