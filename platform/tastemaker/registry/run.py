"""What one training says about itself: parameters, curves, files. Not for models, which go into a bundle."""

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tastemaker.registry.store import registry_errors

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

        flat = [Param(_name(key), str(value)) for key, value in _flatten(params).items()]
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


def _name(key: str) -> str:
    return key.replace("@", "_at_")


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
