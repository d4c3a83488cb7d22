"""What one training says about itself: parameters, curves, files. Not for models, which go into a bundle."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from tastemaker.config import Settings
from tastemaker.config_sources import flatten
from tastemaker.home import Home
from tastemaker.registry.store import experiment_id, open_client, registry_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000


class Run:
    """A run under way. `Registry.run` begins and ends it.

    `@` is spelled `_at_` in names, for MLflow refuses it.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self.id = client, run_id
        self.outcome: Literal["FINISHED", "FAILED"] = "FINISHED"

    def fail(self, reason: str) -> None:
        """Lets the run end as failed though its block goes on, and keeps why."""
        self.outcome = "FAILED"
        self.set_tags({"tastemaker.failure": reason})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Keeps tags, by which runs are found."""
        with registry_errors("tag a run"):
            for key, value in tags.items():
                self._client.set_tag(self.id, key, value)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keeps parameters; nested mappings become dotted names."""
        from mlflow.entities import Param

        flat = [Param(_name(key), str(value)) for key, value in flatten(params).items()]
        with registry_errors("log parameters"):
            for start in range(0, len(flat), _PARAMS_PER_CALL):
                self._client.log_batch(self.id, params=flat[start : start + _PARAMS_PER_CALL])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Keeps one point of each metric's curve."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        points = [Metric(_name(key), float(value), now_ms, step) for key, value in metrics.items()]
        with registry_errors("log metrics"):
            for start in range(0, len(points), _METRICS_PER_CALL):
                self._client.log_batch(self.id, metrics=points[start : start + _METRICS_PER_CALL])

    def log_json(self, name: str, value: Any) -> None:
        """Keeps a JSON file among the run's artifacts."""
        self.log_text(name, json.dumps(value, indent=2, ensure_ascii=False))

    def log_text(self, name: str, text: str) -> None:
        """Keeps a text file among the run's artifacts."""
        with registry_errors(f"log {name}"):
            self._client.log_text(self.id, text, name)


class Runs:
    """The runs of the catalogue that the settings name; opening the embedded store makes it.

    Raises:
        RegistryError: From here and from every method, where MLflow cannot be reached or refuses.
    """

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings, self._home = settings, home
        self._client = open_client(settings, home)

    @contextmanager
    def run(
        self,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        again: str | None = None,
    ) -> Iterator[Run]:
        """A run that ends with the block: finished, failed, or killed by Ctrl-C.

        Args:
            name: What it is called.
            parent: Id of the run that it is nested in.
            tags: Kept with it.
            again: Id of a run of that name that ended or was left, which goes on instead of a new one.
        """
        run = Run(self._client, again or self._begin(name, parent, tags or {}))
        if again is not None:
            with registry_errors("go on with a run"):
                self._client.update_run(again, status="RUNNING")
        status = "FAILED"
        try:
            yield run
            status = run.outcome
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with registry_errors("end a run"):
                self._client.set_terminated(run.id, status)

    def end_children(self, parent: str) -> set[str]:
        """Ends, as killed, the runs nested in a run that nobody is left to end; the names of those that ended before."""
        with registry_errors("read nested runs"):
            experiment = experiment_id(self._client, self._home, self._settings)
            found = self._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
            for run in found:
                if run.info.status == "RUNNING":
                    self._client.set_terminated(run.info.run_id, "KILLED")
        return {str(run.info.run_name) for run in found if run.info.status in ("FINISHED", "FAILED")}

    def _begin(self, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        nested = {} if parent is None else {"mlflow.parentRunId": parent}
        with registry_errors("start a run"):
            experiment = experiment_id(self._client, self._home, self._settings)
            run = self._client.create_run(experiment, tags=nested | dict(tags), run_name=name)
        return str(run.info.run_id)


def _name(key: str) -> str:
    return key.replace("@", "_at_")
