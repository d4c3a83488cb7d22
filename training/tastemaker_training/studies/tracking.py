"""A study in MLflow: a run of its own, and one nested in it for each trial. Written by the driver, the one process that may."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tastemaker.registry.client import Registry
from tastemaker.registry.run import Run
from tastemaker_training.studies.study import Study, Trial, scores

TRIAL, OUTCOME, STUDY = "tastemaker.trial", "tastemaker.outcome", "tastemaker.study"


class TrialRuns:
    """The nested runs. Those of trials under way end with the block, as failed or killed if it does.

    Args:
        registry: Where.
        study: Whose; its run is there.
    """

    def __init__(self, registry: Registry, study: Study) -> None:
        self._registry, self._study = registry, study
        self._kept = registry.end_children(study.mlflow_run_id)
        self._all = ExitStack()
        self._open: dict[int, tuple[Run, ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.__exit__(kind, error, trace)

    def catch_up(self, trials: Sequence[Trial]) -> None:
        """Writes trials that ended under an earlier driver, where that did not."""
        for trial in trials:
            if trial.outcome != "running" and self._name(trial.number) not in self._kept:
                self._start(trial.number, trial.values)
                for point, score in zip(trial.curve, scores(self._study, trial.curve), strict=True):
                    self._report(trial.number, point, score)
                self._end(trial.number, trial.outcome, trial.reason)

    def write(self, event: Mapping[str, Any]) -> None:
        """Takes one event of the study's, in order."""
        if event["event"] == "start":
            self._start(event["trial"], event["values"])
        elif event["event"] == "report":
            self._report(event["trial"], event["numbers"], event["score"])
        else:
            self._end(event["trial"], event["outcome"], event["reason"])

    def _start(self, number: int, values: Mapping[str, Any]) -> None:
        own = ExitStack()
        run = own.enter_context(
            self._registry.run(
                self._name(number),
                parent=self._study.mlflow_run_id,
                tags={STUDY: self._study.name, TRIAL: str(number)},
            )
        )
        self._all.push(own)
        self._open[number] = run, own
        run.log_params(values)

    def _report(self, number: int, numbers: Mapping[str, float], score: float) -> None:
        step = int(numbers["epoch"])
        curve = {key: value for key, value in numbers.items() if key != "epoch"}
        self._open[number][0].log_metrics(curve | {"score": score}, step)

    def _end(self, number: int, outcome: str, reason: str | None) -> None:
        run, own = self._open.pop(number)
        run.set_tags({OUTCOME: outcome})
        if reason is not None:
            run.fail(reason)
        own.close()

    def _name(self, number: int) -> str:
        return f"{self._study.name}/{number}"
