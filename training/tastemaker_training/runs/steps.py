"""The steps of a training run, each an artifact named by all that it depends on. Not their order (`run`)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from tastemaker.config import Settings
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories, Split
from tastemaker.errors import TrainingError
from tastemaker.features.columns import FeatureSchema
from tastemaker.features.impressions import Slots
from tastemaker.features.item_store import ItemFacts
from tastemaker.features.known_records import KnownRecords, known_from
from tastemaker.features.outcomes import Outcomes
from tastemaker.features.places import Place
from tastemaker.features.ranking_data import CLICK, require_targets
from tastemaker.features.request_features import DISTANCE, chosen
from tastemaker.home import Home
from tastemaker.models.calibration import Calibration
from tastemaker.models.cold.attributes import demographics
from tastemaker.models.dlrm import DlrmConfig, dlrm_specs
from tastemaker.models.rankers import AnyRanker, Ranker
from tastemaker.models.two_tower import two_tower_specs
from tastemaker.models.zoo import model_class
from tastemaker.stages.pipeline import Pipeline
from tastemaker_training.artifacts import Artifacts, artifact_name, load_tensors, plain
from tastemaker_training.distributed.workers import Workers
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.plan.recipe_data import (
    events_of_state,
    refuse_unknown_devices,
    shown_and_left,
    slots_shown,
    split_of,
)
from tastemaker_training.rows.example_set import write_example_set
from tastemaker_training.rows.ranking_file import save_ranking_data
from tastemaker_training.runs import evaluate
from tastemaker_training.runs.ranker_task import dlrm_config, ranker_task
from tastemaker_training.runs.step_keys import Key, model_step, reads_content, step_keys
from tastemaker_training.sources.click_weights import ClickWeights
from tastemaker_training.sources.content import fit_content
from tastemaker_training.sources.fitted import Fitted
from tastemaker_training.sources.memory import UnprunedEase, fit_memory, recommend_by
from tastemaker_training.sources.ranker_requests import RankerRequests
from tastemaker_training.sources.user_groups import demographic_groups, homes_of
from tastemaker_training.sources.zoo_models import fit_zoo_model, log_of

TWO_TOWER_MODULE = "tastemaker_training.fits.two_tower"
_REQUESTS = "requests.safetensors"


@dataclass(frozen=True)
class Steps:
    """One recipe on one dataset. Each of the artifacts is made when asked for, unless it is there."""

    settings: Settings
    home: Home
    recipe: Recipe
    num_workers: int
    dataset: Dataset
    split: Split
    rejections: Histories | None
    slots: Slots | None
    workers: Workers | None
    resume: bool = False
    warm_start: str | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        home: Home,
        recipe: Recipe,
        num_workers: int,
        workers: Workers | None = None,
        *,
        dataset: Dataset,
        resume: bool = False,
        warm_start: str | None = None,
    ) -> "Steps":
        """The steps on the catalogue's data; without `workers` nothing can be trained, only used.

        Args:
            settings: Which catalogue.
            home: Where data and artifacts lie.
            recipe: What to do.
            num_workers: Ranks.
            workers: Who trains.
            dataset: What to train on, frozen.
            resume: Whether fits that were not finished go on from their checkpoints.
            warm_start: Training id of an earlier two-tower, from which this one begins.

        Raises:
            DataError: No user has enough events to hold any out, or the data lacks what the recipe learns from.
            TrainingError: The recipe places tables that the models have not.
        """
        split, left = split_of(dataset, recipe), shown_and_left(settings, home, recipe, dataset)
        refuse_unknown_devices(recipe, dataset)
        slots = slots_shown(settings, home, recipe, dataset, split)
        recipe.two_tower.fit.stream.check_ranks(num_workers)
        learned = (dataset, split, left, slots)
        steps = cls(settings, home, recipe, num_workers, *learned, workers, resume, warm_start)
        require_targets(recipe.ranker.model.targets, (CLICK, *steps.outcomes.labels))
        two_tower = recipe.two_tower
        specs = two_tower_specs(two_tower.model, FeatureSchema.fit(dataset.items))
        two_tower.fit.sharding.placements([spec.name for spec in specs])
        recipe.ranker.fit.sharding.placements([spec.name for spec in dlrm_specs(steps._dlrm)])
        return steps

    @cached_property
    def _artifacts(self) -> Artifacts:
        return Artifacts(self.home, resume=self.resume)

    @cached_property
    def _keys(self) -> dict[str, Key]:
        return step_keys(
            self.recipe,
            self.dataset.fingerprint,
            self._dlrm,
            rejections=self.rejections,
            slots=self.slots,
            events=self._state_events,
            homes=self._homes,
            attributes=self._attributes,
            warm_start=self.warm_start,
            click_weights=None if self._click_weights is None else self._click_weights.key,
        )

    @cached_property
    def request_features(self) -> KnownRecords | None:
        """Features of requests as of their moments; None where the recipe's hydration names none."""
        events = self._state_events
        if events is None:
            return None
        facts = ItemFacts.from_items(self.dataset.items)
        return KnownRecords(events, known_from(events), facts, self._homes)

    @cached_property
    def _homes(self) -> dict[str, Place]:
        """Where users are at home, where the recipe reads how far that is."""
        read = chosen(self.recipe.pipeline.hydration.request_features)
        return homes_of(self.home, self.settings.catalogue) if {*DISTANCE} & {*read} else {}

    @cached_property
    def _state_events(self) -> pa.Table | None:
        return events_of_state(self.settings, self.home, self.recipe, self.dataset)

    @cached_property
    def memory(self) -> Path:
        """The baselines' two fits."""

        def make(folder: Path) -> None:
            groups = demographic_groups(self.home, self.settings.catalogue, self.dataset.user_ids)
            fit_memory(self.dataset, self.split, self.recipe.memory, folder, groups)

        return self._get("memory", make)

    @cached_property
    def models(self) -> dict[str, Path]:
        """The two fits of each of the recipe's further models."""
        return {name: self._model(name) for name in self.recipe.models}

    def _model(self, name: str) -> Path:
        asked = self.recipe.models[name]

        def make(folder: Path) -> None:
            attributes = self._attributes if model_class(asked.kind).reads_attributes else None
            fit_zoo_model(self.dataset, self.split, asked, folder, attributes)

        return self._get(model_step(name), make)

    @cached_property
    def _attributes(self) -> pa.Table | None:
        """What is known of the users beside their events, where one of the further models reads it."""
        if not any(model_class(asked.kind).reads_attributes for asked in self.recipe.models.values()):
            return None
        return demographics(demographic_groups(self.home, self.settings.catalogue, self.dataset.user_ids))

    @cached_property
    def content(self) -> Path | None:
        """The items' content vectors; None where no source reads them. Both fits share what a projection learned from train."""
        if not reads_content(self.recipe):
            return None
        return self._get(
            "content",
            lambda folder: fit_content(
                log_of(self.dataset, self.split.train), self.recipe.content, self.home, folder
            ),
        )

    @cached_property
    def examples(self) -> Path:
        """What the two-tower learns from, as files that the ranks stream."""

        def make(folder: Path) -> None:
            if self.workers is not None:
                self.workers.start()
            recipe = self.recipe.two_tower
            write_example_set(
                folder,
                self.dataset,
                self.split,
                recipe.model.max_history,
                recipe.fit.validation_users,
                recipe.ids,
                self.rejections,
            )

        return self._get("examples", make)

    @cached_property
    def two_tower(self) -> Path:
        """The two-tower's two fits; the baselines are fitted meanwhile."""
        shown = ("training two-tower", 2 * self.recipe.two_tower.fit.epochs)
        return self._train("two_tower", *self.two_tower_loop(), shown, "memory")

    def two_tower_loop(self) -> tuple[str, dict[str, Any]]:
        """The two-tower's training loop as `Workers.submit` takes it, and its argument."""
        config = plain(self.recipe.two_tower) | {"seed": self.recipe.seed, "examples": str(self.examples)}
        if self.warm_start is not None:
            config["warm_start"] = str(self._artifacts.finished(self.warm_start))
        return f"{TWO_TOWER_MODULE}:two_tower_loop", config

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of the items that validation holds."""
        return Outcomes.of(self.dataset, self.split.validation)

    @cached_property
    def requests(self) -> Path:
        """The ranker's data: what the first fit's sources propose, labelled by what validation holds."""

        def make(folder: Path) -> None:
            found = self.asked.gather(self._fitted("train"), self.request_features)
            save_ranking_data(folder / _REQUESTS, found)

        return self._get("requests", make)

    @property
    def asked(self) -> RankerRequests:
        """What those requests ask."""
        return RankerRequests(
            self.recipe.pipeline, self.dataset, self.split, self.outcomes, self.slots, self._click_weights
        )

    @cached_property
    def _click_weights(self) -> ClickWeights | None:
        config = self.recipe.ranker.fit.click_weights
        return ClickWeights.of(self.settings, self.home, config, self.split, len(self.dataset.item_ids))

    @cached_property
    def ranker(self) -> Path:
        """The ranker with its calibration; the retrievers are evaluated meanwhile."""
        shown = ("training ranker", self.recipe.ranker.num_reports)
        return self._train("ranker", *self.ranker_loop(), shown, "solo")

    def ranker_loop(self) -> tuple[str, dict[str, Any]]:
        """The ranker's training loop as `Workers.submit` takes it, and its argument; makes the requests it reads."""
        return ranker_task(self.recipe, FeatureSchema.fit(self.dataset.items), self.requests / _REQUESTS)

    @cached_property
    def solo(self) -> Path:
        """How each baseline and the two-tower alone do on test; the best of them also on the last event."""

        def make(folder: Path) -> None:
            memory, num_items = self.refit.memory, self.dataset.num_items
            systems = {name: recommend_by(source) for name, source in memory.baselines().items()}
            ease = UnprunedEase(self.split.train_validation.to_csr(num_items), self.recipe.memory.ease.l2)
            systems["EASE"] = ease.recommender(None)
            systems["EASE, recency"] = ease.recommender(memory.recent_ease.config.half_life)
            systems |= {name: recommend_by(self.refit.model_source(name)) for name in self.recipe.models}
            systems[evaluate.TWO_TOWER] = recommend_by(self.refit.two_tower_source())
            found = evaluate.evaluate_systems(systems, self.split, self.dataset)
            evaluate.save_evaluations(folder / "test", found)
            again = {name: systems[name] for name in (evaluate.best_baseline(found), evaluate.TWO_TOWER)}
            evaluate.save_evaluations(folder / "last-one", evaluate.evaluate_last_one(again, self.dataset))

        return self._get("solo", make)

    @cached_property
    def refit(self) -> Fitted:
        """The retrievers fitted on train with validation: those that serve."""
        return self._fitted("refit")

    def load_ranker(self) -> tuple[Ranker, Calibration]:
        """The trained ranker and its calibration."""
        folder = self.ranker / "ranker"
        config, calibration = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("ranker", "calibration")
        )
        ranker = AnyRanker.from_state(config, load_tensors(folder / "ranker.safetensors"))
        return ranker, Calibration.from_state(calibration)

    def pipeline(self) -> Pipeline:
        """The whole pipeline as it will serve."""
        return self.pipeline_of(*self.load_ranker())

    def pipeline_of(self, model: Ranker, calibration: Calibration) -> Pipeline:
        """The same with another ranker."""
        return self.refit.pipeline(self.recipe.pipeline, model, calibration, self.request_features)

    def pipeline_of_strangers(self) -> Pipeline | None:
        """The pipeline as it serves users without a record; None where it reads no record."""
        if self.request_features is None:
            return None
        strangers = self.request_features.of_strangers
        return self.refit.pipeline(self.recipe.pipeline, *self.load_ranker(), strangers)

    def _fitted(self, fit: str) -> Fitted:
        indexes = (self.recipe.index, self.recipe.content_index)
        return Fitted.load(self.dataset, self.memory, self.two_tower, fit, self.content, indexes, self.models)

    def _get(self, name: str, make: Callable[[Path], None]) -> Path:
        kind, key = self._keys[name]
        return self._artifacts.get(artifact_name(kind, key), key, make)

    def _train(
        self, name: str, loop: str, config: dict[str, Any], shown: tuple[str, int], meanwhile: str
    ) -> Path:
        """An artifact that a training loop makes, while this process makes the artifact `meanwhile`."""

        def make(folder: Path) -> None:
            if self.workers is None:
                raise TrainingError(f"{folder} is gone or was not finished", mend="train again")
            task = self.workers.submit(loop, config, folder)
            getattr(self, meanwhile)
            task.wait(*shown)

        return self._get(name, make)

    @cached_property
    def _dlrm(self) -> DlrmConfig:
        return dlrm_config(self.recipe, FeatureSchema.fit(self.dataset.items))
