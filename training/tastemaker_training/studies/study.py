"""The record of a study: what it searches, and what each of its trials came to. Not for running them (`trials`).

A study is a folder under the home's `checkpoints`. `study.json` is written once; `events.jsonl` takes a line for all that
happens to a trial, from the driver alone, and is what a resumed study goes on from: nothing of it is pickled.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from tastemaker.config import Settings
from tastemaker.errors import TrainingError, UsageError
from tastemaker.home import Home, write_json
from tastemaker.models.ctr.kinds import click_model_class
from tastemaker.types import catalogue_name
from tastemaker_training.artifacts import plain
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.plan.search_space import Part, Space, with_values

REPORTED: Mapping[Part, tuple[str, ...]] = {
    "two_tower": ("validation_ndcg@10", "loss"),
    "ranker": ("held_out_ndcg@10", "held_out_ece", "loss"),
}
"""What each part's training says of an epoch; by the first of them trials are compared unless the recipe says otherwise."""
Outcome = Literal["running", "completed", "stopped", "failed"]
_RECORD, _EVENTS = "study.json", "events.jsonl"
_HOW_LONG = ("num_trials", "concurrency")
"""Keys of `tune` that a study may be resumed with other values of."""


def reported(recipe: Recipe, part: Part) -> tuple[str, ...]:
    """What of `REPORTED` a recipe's part says: a click model that is not fitted by steps has no loss."""
    has_loss = part != "ranker" or click_model_class(recipe.ranker.kind).has_losses
    return tuple(name for name in REPORTED[part] if has_loss or name != "loss")


@dataclass(frozen=True)
class Trial:
    """One trial. Number 0 has the recipe's own values. Its score is that of what its training would keep so far."""

    number: int
    values: Mapping[str, Any]
    started_ms: int
    outcome: Outcome = "running"
    curve: tuple[Mapping[str, float], ...] = ()
    score: float | None = None
    reason: str | None = None
    ended_ms: int | None = None

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        return vars(self) | {"values": dict(self.values), "curve": [dict(point) for point in self.curve]}


@dataclass(frozen=True)
class Study:
    """What is searched, and where its record lies.

    Args:
        folder: Of the record.
        part: Of the recipe that is trained in a trial.
        recipe: Resolved, with defaults; its part's fit has the epochs of a whole trial.
        spaces: Of the part, by dotted path.
        metric: What trials are compared by.
        fingerprint: Of the frozen data.
        mlflow_run_id: The run that trials are nested in.
    """

    folder: Path
    part: Part
    recipe: Recipe
    spaces: Mapping[str, Space]
    metric: str
    fingerprint: str
    mlflow_run_id: str

    @property
    def name(self) -> str:
        """Recipe and time."""
        return self.folder.name

    @property
    def max_epochs(self) -> int:
        """Of a whole trial."""
        return self.recipe.ranker.num_reports if self.part == "ranker" else self.recipe.two_tower.fit.epochs

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The recipe's own values, which trial 0 has."""
        return {path: space.default for path, space in self.spaces.items()}

    def recipe_of(self, values: Mapping[str, Any]) -> Recipe:
        """The whole recipe with a trial's values."""
        return Recipe.parse(with_values(plain(self.recipe), values), f"a trial of {self.name}")

    def better(self, score: float, other: float) -> bool:
        """Whether a score beats another."""
        return score > other if self.recipe.tune.mode == "max" else score < other

    def best(self) -> Trial:
        """The best of the trials that ran to the end; of equals the first.

        Raises:
            TrainingError: None did.
        """
        trials = self.trials()
        best = None
        for trial in trials:
            whole = trial.outcome == "completed" and trial.score is not None
            if whole and (best is None or self.better(trial.score, best.score)):  # type: ignore[arg-type]
                best = trial
        if best is None:
            reason = next((trial.reason for trial in trials if trial.reason), "none was finished")
            what = f"no trial of study {self.name} ran to the end: {reason}"
            raise TrainingError(what, mend=f"see {self.folder / _EVENTS}, mend the recipe and tune again")
        return best

    def reference(self) -> Trial | None:
        """The trial of the defaults, once it began."""
        return next((trial for trial in self.trials() if trial.number == 0), None)

    def trials(self) -> list[Trial]:
        """All trials, as of now."""
        return replay(self.events())

    def events(self) -> list[dict[str, Any]]:
        """What happened so far, in order."""
        try:
            lines = (self.folder / _EVENTS).read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def save(self) -> None:
        """Writes the record, for its trials' processes and for whoever resumes it."""
        record = {"part": self.part, "recipe": plain(self.recipe), "metric": self.metric}
        record["spaces"] = {path: space.plain() for path, space in self.spaces.items()}
        record |= {"fingerprint": self.fingerprint, "mlflow_run_id": self.mlflow_run_id}
        write_json(self.folder / _RECORD, record)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The study of a folder."""
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        spaces = {path: Space.parse(space, path, str(folder)) for path, space in record["spaces"].items()}
        recipe = Recipe.parse(record["recipe"], f"recipe of study {folder.name}")
        return cls(folder=folder, **record | {"recipe": recipe, "spaces": spaces})


def replay(events: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """The trials that events tell of, by number; a trial that began again has only what came after."""
    found: dict[int, Trial] = {}
    for event in events:
        number, time_ms = event["trial"], event["time_ms"]
        if event["event"] == "start":
            found[number] = Trial(number, event["values"], time_ms)
        elif event["event"] == "report":
            curve = (*found[number].curve, event["numbers"])
            found[number] = replace(found[number], curve=curve, score=event["score"])
        else:
            ended = {"outcome": event["outcome"], "reason": event["reason"], "ended_ms": time_ms}
            found[number] = replace(found[number], **ended)
    return [found[number] for number in sorted(found)]


def scores(study: Study, curve: Sequence[Mapping[str, float]]) -> list[float]:
    """After each epoch, the metric of what the training would keep then: the two-tower's best epoch, the ranker's last.

    Raises:
        TrainingError: An epoch lacks the metric.
    """
    found: list[float] = []
    for point in curve:
        if study.metric not in point:
            raise TrainingError(
                f"metric of study {study.name}", value=study.metric, mend="set tune.metric in the recipe",
                limit=f"one of {', '.join(sorted(point))}, which the {study.part} reports",
            )  # fmt: skip
        score = float(point[study.metric])
        kept = bool(found) and study.part == "two_tower" and study.better(found[-1], score)
        found.append(found[-1] if kept else score)
    return found


def encode(study: Study, values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values as Optuna has them."""
    return {path: space.encode(values[path]) for path, space in study.spaces.items()}


def decode(study: Study, sampled: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values; other keys of `sampled` are passed over."""
    return {path: space.decode(sampled[path]) for path, space in study.spaces.items()}


class EventLog:
    """Appends to a study's events."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _EVENTS

    def mend(self) -> None:
        """Cuts off a line that a killed driver left unfinished."""
        if self._path.exists():
            whole = self._path.read_bytes().rpartition(b"\n")
            os.truncate(self._path, len(whole[0]) + len(whole[1]))

    def append(self, trial: int, event: Literal["start", "report", "end"], **more: Any) -> None:
        """Adds what happened to a trial now."""
        line = {"trial": trial, "event": event, "time_ms": time.time_ns() // 1_000_000, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def new_folder(home: Home, settings: Settings, recipe: Recipe) -> Path:
    """A folder for a study, that only we may enter: Ray Tune keeps pickles in it while trials run."""
    folder = _root(home, settings) / f"{recipe.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def latest(home: Home, settings: Settings, recipe: Recipe, part: Part) -> Study:
    """The newest study of a recipe's part.

    Raises:
        UsageError: There is none.
    """
    for folder in _folders(home, settings, recipe):
        study = Study.open(folder)
        if study.part == part:
            return study
    what = f"there is no study of {part} of recipe {recipe.name}"
    raise UsageError(what, mend="run `tastemaker tune` without --resume")


def check_same(study: Study, other: Study) -> None:
    """Lets pass a study that searches the same as another; trials and concurrency may differ.

    Raises:
        UsageError: It does not.
    """
    for key in ("recipe", "spaces", "metric"):
        if _comparable(study, key) != _comparable(other, key):
            what = f"{key} of study {study.name} is not what the recipe says now"
            raise UsageError(what, mend="run without --resume to begin another study")


def _comparable(study: Study, key: str) -> Any:
    if key != "recipe":
        return getattr(study, key)
    written = plain(study.recipe)
    return written | {"tune": {k: v for k, v in written["tune"].items() if k not in _HOW_LONG}}


def _folders(home: Home, settings: Settings, recipe: Recipe) -> Iterator[Path]:
    """Newest first."""
    found = [path.parent for path in _root(home, settings).glob(f"*/{_RECORD}")]
    return iter(sorted((f for f in found if f.name.rsplit("-", 1)[0] == recipe.name), reverse=True))


def _root(home: Home, settings: Settings) -> Path:
    return home / "checkpoints" / "tune" / catalogue_name(settings.catalogue)
