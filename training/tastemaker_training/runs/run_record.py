"""A finished run: its folder, with what it was told, what it took and its offline table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tastemaker.bundle.manifest import code_revision
from tastemaker.errors import UsageError
from tastemaker.home import Home, write_json
from tastemaker.types import catalogue_name
from tastemaker_training.artifacts import plain
from tastemaker_training.plan.recipe import Recipe

_RECORD, _OFFLINE = "run.json", "offline.json"


@dataclass(frozen=True)
class Run:
    """One finished run: what it was told and where its results lie."""

    folder: Path
    recipe: Recipe
    fingerprint: str
    num_workers: int
    timings: Mapping[str, float]
    mlflow_run_id: str
    code_revision: str
    warm_start: str | None = None

    @property
    def id(self) -> str:
        """Recipe and time."""
        return self.folder.name

    def offline(self) -> dict[str, Any]:
        """The offline table."""
        table: dict[str, Any] = json.loads((self.folder / _OFFLINE).read_text(encoding="utf-8"))
        return table

    def summary(self) -> dict[str, Any]:
        """What `tastemaker train` says at the end, JSON-able."""
        return {
            "run": self.id,
            "recipe": self.recipe.name,
            "dataset": self.fingerprint,
            "workers": self.num_workers,
            "timings_seconds": dict(self.timings),
            "mlflow_run_id": self.mlflow_run_id,
        }


def new_folder(home: Home, catalogue: str, recipe: Recipe) -> Path:
    """A folder for a run that begins now."""
    folder = _runs_folder(home, catalogue) / f"{recipe.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    folder.mkdir(parents=True)
    return folder


def save_offline(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes the offline table of a run."""
    write_json(folder / _OFFLINE, report)


def finish(
    folder: Path,
    recipe: Recipe,
    fingerprint: str,
    num_workers: int,
    timings: Mapping[str, float],
    mlflow_run_id: str,
    warm_start: str | None = None,
) -> Run:
    """Writes a run's record, which makes it finished, and gives the run; see `Run` for the arguments."""
    record = {"recipe": plain(recipe), "fingerprint": fingerprint, "num_workers": num_workers}
    record |= {"timings": timings, "mlflow_run_id": mlflow_run_id}
    record |= {"code_revision": code_revision(), "warm_start": warm_start}
    write_json(folder / _RECORD, record)
    return _read(folder)


def open_run(home: Home, catalogue: str, name: str) -> Run:
    """A finished run by its id, or the latest of a recipe.

    Raises:
        UsageError: There is none.
    """
    folder = _runs_folder(home, catalogue)
    known = sorted(
        (path.parent.name for path in folder.glob(f"*/{_RECORD}")), key=lambda run: run.rsplit("-", 1)[-1]
    )
    recipe = Path(name).stem
    chosen = [run for run in known if run == name] or [
        run for run in known if run.rsplit("-", 1)[0] == recipe
    ]
    if not chosen:
        recent = ", ".join(known[-5:]) or "none yet"
        mend = f"run `tastemaker train {name}`"
        raise UsageError("run", value=name, limit=f"a recipe that was trained, or one of {recent}", mend=mend)
    return _read(folder / chosen[-1])


def _read(folder: Path) -> Run:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    recipe = Recipe.parse(record.pop("recipe"), f"recipe of run {folder.name}")
    return Run(folder=folder, recipe=recipe, **record)


def _runs_folder(home: Home, catalogue: str) -> Path:
    return home / "checkpoints" / "runs" / catalogue_name(catalogue)
