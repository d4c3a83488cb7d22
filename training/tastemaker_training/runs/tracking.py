"""What a run leaves in MLflow: resolved recipe, data, curves, the tables' plan, metrics, the offline table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tastemaker.bundle.manifest import code_revision
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker_training.artifacts import plain
from tastemaker_training.distributed.exchange import read_curves
from tastemaker_training.plan.recipe import recipe_text
from tastemaker_training.runs.evaluate import SHOWN
from tastemaker_training.runs.steps import Steps


def log_run(
    settings: Settings,
    home: Home,
    steps: Steps,
    name: str,
    offline: Mapping[str, Any],
    timings: Mapping[str, float],
) -> str:
    """Writes one MLflow run and gives its id."""
    recipe = plain(steps.recipe)
    data = {
        "fingerprint": steps.dataset.fingerprint,
        "users": steps.dataset.num_users,
        "items": steps.dataset.num_items,
    }
    with Registry(settings, home).run(name) as run:
        run.log_params(
            {"recipe": recipe, "data": data, "workers": steps.num_workers, "code": code_revision()}
        )
        run.log_text("recipe.yaml", recipe_text(steps.recipe))
        for step, metrics in _curves(steps):
            run.log_metrics(metrics, step)
        run.log_metrics(
            headline_metrics(offline) | {f"seconds/{_plain(key)}": value for key, value in timings.items()}
        )
        run.log_json("offline.json", offline)
        run.log_json("plan.json", table_plan(steps))
        return run.id


def headline_metrics(offline: Mapping[str, Any]) -> dict[str, float]:
    """`system/metric` of every row of the offline table."""
    return {f"{_plain(row['system'])}/{metric}": row[metric] for row in offline["rows"] for metric in SHOWN}


def table_plan(steps: Steps) -> dict[str, Any]:
    """Where the tables of each fit lay on the ranks."""
    folders = {"two_tower": steps.two_tower, "ranker": steps.ranker}
    return {name: _plan(folder) for name, folder in folders.items()}


def _plan(folder: Path) -> list[Any]:
    return next((report["plan"] for report in read_curves(folder) if "plan" in report), [])


def _curves(steps: Steps) -> Iterator[tuple[int, dict[str, float]]]:
    """Each epoch's numbers, by the name of the fit."""
    for prefix, folder in (("two-tower", steps.two_tower), ("ranker", steps.ranker)):
        for report in read_curves(folder):
            if "epoch" in report:
                fit = f"{prefix}/{report['fit']}" if "fit" in report else prefix
                numbers = {key: value for key, value in report.items() if key not in ("epoch", "fit")}
                yield report["epoch"], {f"{fit}/{key}": value for key, value in numbers.items()}


def _plain(name: str) -> str:
    """MLflow takes letters, digits and few signs."""
    return name.replace(",", "").replace("'", "").replace(" ", "-")
