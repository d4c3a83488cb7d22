"""The nightly retrain: log, data gate, training from the champion's weights, publishing, promotion.

It may be called again at any time: the same log and recipe are trained once, and a lock keeps two apart. What it must
not do, such as moving an alias against a gate, it does not; the answer says which step ended it.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.importers import num_refused_rows
from tastemaker.data.log import freeze_log
from tastemaker.data.schema import Dataset
from tastemaker.errors import BundleError, GateRefusedError, UsageError
from tastemaker.home import Home
from tastemaker.promotion.promoter import Promoter, PromotionOrder, refusal
from tastemaker.promotion.record import Promotion
from tastemaker.registry.client import Registry, check_alias
from tastemaker.registry.versions import Version
from tastemaker.terminal import print_table
from tastemaker_training.artifacts import Artifacts, plain
from tastemaker_training.distributed.workers import check_workers
from tastemaker_training.plan.data_gate import CheckResult, check, print_checks, refusals
from tastemaker_training.plan.data_profile import DataProfile, profile
from tastemaker_training.plan.recipe import Recipe
from tastemaker_training.runs.publish import publish_run
from tastemaker_training.runs.run import train
from tastemaker_training.runs.run_record import Run

ACTOR = "tastemaker retrain"
"""Who moved the alias, in the registry's history."""
CHAMPION, PROFILE = "champion", "data_profile.json"
Outcome = Literal["promoted", "waiting", "nothing new", "refused"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a retrain came to."""

    name: str
    outcome: str
    seconds: float
    detail: str


@dataclass
class Retrained:
    """What a retrain did. `refusal` says why it ended early, where a gate said no."""

    outcome: Outcome = "promoted"
    steps: list[Step] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    published: dict[str, Any] | None = None
    refusal: GateRefusedError | None = None

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "outcome": self.outcome,
            "steps": [asdict(step) for step in self.steps],
            "data_gate": [asdict(result) for result in self.checks],
            "published": self.published,
            "refusal": str(self.refusal) if self.refusal else None,
        }

    def refuse(self, refusal: GateRefusedError) -> "Retrained":
        """This, ended by a gate."""
        self.outcome, self.refusal = "refused", refusal
        return self


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be retrained and where it goes; `reason` says why the data gate is overridden, where it is."""

    recipe: Recipe
    num_workers: int = 1
    to: str = "challenger"
    force: bool = False
    reason: str = ""


def retrain(settings: Settings, home: Home, order: Order) -> Retrained:
    """Trains a recipe on the log as of now, and promotes the result; does nothing where there is nothing new.

    Raises:
        UsageError: Another retrain is under way, force without a reason, more workers than cores, no proper alias.
        DataError: There is no log, or too little of it.
        TrainingError: The training failed.
    """
    check_order(order, settings)
    with home.lock("retrain"):
        return _Retrain(settings, home, order).run()


def check_order(order: Order, settings: Settings) -> None:
    """Lets pass what can be done here.

    Raises:
        UsageError: Force without a reason, more workers than cores, no proper alias.
    """
    check_alias(order.to)
    check_workers(order.num_workers, settings)
    if order.force and not order.reason.strip():
        raise UsageError("a forced retrain needs a reason", mend="say why with --reason")


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a retrain would come to before it trains: `gate` is what the data gate says, `same` the version that is of this already."""

    gate: str
    same: str | None
    warm_start: str | None


def rehearse(settings: Settings, home: Home, order: Order, dataset: Dataset) -> Rehearsed:
    """Looks where `retrain` would get with a dataset, and does nothing.

    Raises:
        GateRefusedError: The data gate refuses.
        RegistryError: MLflow cannot be reached.
    """
    return _Retrain(settings, home, order).rehearse(dataset)


def print_retrained(done: Retrained) -> None:
    """The data gate's figures and the steps, as tables."""
    if done.checks:
        print_checks(done.checks)
    steps = [(step.name, step.outcome, f"{step.seconds:.1f}", step.detail) for step in done.steps]
    print_table(f"Retrain: {done.outcome}", ["step", "outcome", "seconds", "detail"], steps)


class _Retrain:
    """One retrain under its lock."""

    def __init__(self, settings: Settings, home: Home, order: Order) -> None:
        self.settings, self.home, self.order = settings, home, order
        self.registry, self.store = Registry(settings, home), BundleStore.of(settings, home)
        self.done = Retrained()

    def run(self) -> Retrained:
        """All steps, in order."""
        catalogue, done = self.settings.catalogue, self.done
        dataset = self._step("log", lambda: freeze_log(self.home, catalogue), _describe)
        aliases = self.registry.aliases(catalogue)
        if (same := self._trained_already(aliases, dataset)) is not None:
            done.outcome = "nothing new"
            done.steps.append(Step("comparison", "nothing new", 0.0, same))
            return done
        champion = self._open(aliases.get(CHAMPION))
        if (refusal := self._data_gate(dataset, champion)) is not None:
            return done.refuse(refusal)
        warm_start = self._warm_start(champion)
        begun = f"from training {warm_start}" if warm_start else "from scratch"
        run = self._step(
            "training", lambda: self._train(dataset, warm_start), lambda run: f"{run.id}, {begun}"
        )
        done.published = self._step("publishing", lambda: self._publish(run), _version)
        try:
            promotion = self._step("promotion", self._promote, _asked)
        except GateRefusedError as error:
            done.steps.append(Step("promotion", "refused", 0.0, str(error)))
            return done.refuse(error)
        if promotion.state == "waiting":
            done.outcome = "waiting"
        return done

    def rehearse(self, dataset: Dataset) -> Rehearsed:
        """The steps before the training."""
        aliases = self.registry.aliases(self.settings.catalogue)
        same, champion = self._trained_already(aliases, dataset), self._open(aliases.get(CHAMPION))
        if (refusal := self._data_gate(dataset, champion)) is not None:
            raise refusal
        gate = self.done.steps[-1]
        return Rehearsed(f"{gate.outcome}: {gate.detail}", same, self._warm_start(champion))

    def _step(self, name: str, do: Callable[[], T], say: Callable[[T], str]) -> T:
        started = time.monotonic()
        made = do()
        self.done.steps.append(Step(name, "done", round(time.monotonic() - started, 2), say(made)))
        return made

    def _trained_already(self, aliases: Mapping[str, Version], dataset: Dataset) -> str | None:
        """Which live version has been made of this dataset by this recipe."""
        recipe = self.order.recipe
        for alias in (CHAMPION, self.order.to):
            bundle = self._open(aliases.get(alias))
            if bundle is None or not bundle.has("recipe.json"):
                continue
            manifest = bundle.manifest
            made_of = (manifest.dataset.fingerprint, manifest.recipe, bundle.json("recipe.json"))
            if made_of == (dataset.fingerprint, recipe.name, plain(recipe)):
                return f"{alias}, version {aliases[alias].number}, is of this log and recipe"
        return None

    def _open(self, version: Version | None) -> Bundle | None:
        """The version's bundle; None where there is none, or it is lost: that must not keep its successor out."""
        try:
            return Bundle.open(self.store, version.ref) if version else None
        except BundleError:
            return None

    def _data_gate(self, dataset: Dataset, champion: Bundle | None) -> GateRefusedError | None:
        """Compares the dataset with the champion's; the refusal, unless it is overridden."""
        started = time.monotonic()
        if champion is None or not champion.has(PROFILE):
            why = "no champion can be read" if champion is None else f"the champion has no {PROFILE}"
            self.done.steps.append(Step("data gate", "not applicable", 0.0, why))
            return None
        old = DataProfile.parse(champion.json(PROFILE), f"{PROFILE} of bundle {champion.bundle_id}")
        new = profile(dataset, num_refused_rows(self.home, self.settings.catalogue))
        self.done.checks = check(new, old, self.order.recipe.data_gate, time.time_ns() // 1_000_000)
        figures = refusals(self.done.checks)
        outcome = "passed" if not figures else "forced" if self.order.force else "refused"
        detail = figures or f"{len(self.done.checks)} checks"
        self.done.steps.append(Step("data gate", outcome, round(time.monotonic() - started, 2), detail))
        if outcome != "refused":
            return None
        mend = "see to the data, or go on with --force --reason"
        return GateRefusedError(f"the data gate refused the log ({figures})", mend=mend)

    def _warm_start(self, champion: Bundle | None) -> str | None:
        """The champion's two-tower training, where this home still has it."""
        if champion is None or not champion.has("two_tower.json"):
            return None
        training_id = champion.manifest.training_id
        return training_id if Artifacts(self.home).has(training_id) else None

    def _train(self, dataset: Dataset, warm_start: str | None) -> Run:
        (run,) = train(
            self.settings, self.home, [self.order.recipe], self.order.num_workers,
            resume=True, warm_start=warm_start, dataset=dataset,
        )  # fmt: skip
        return run

    def _publish(self, run: Run) -> dict[str, Any]:
        """The published version, with the data gate's answers as its tags."""
        published = publish_run(self.settings, self.home, run)
        tags = {f"tastemaker.data_gate.{one.name}": json.dumps(asdict(one)) for one in self.done.checks}
        if self._is_forced:
            tags["tastemaker.data_gate.forced"] = self.order.reason
        self.registry.tag(self.settings.catalogue, published["version"], tags)
        return published

    def _promote(self) -> Promotion:
        assert self.done.published is not None, "published before"
        reason = f"retrain of {self.order.recipe.name}"
        if self._is_forced:
            reason += f"; data gate forced: {self.order.reason}"
        wanted = PromotionOrder(self.done.published["version"], self.order.to, ACTOR, reason)
        promotion = Promoter(self.settings, self.home, self.registry, self.store).promote(wanted)
        if (refused := refusal(promotion)) is not None:
            raise refused
        return promotion

    @property
    def _is_forced(self) -> bool:
        return bool(refusals(self.done.checks))


def _describe(dataset: Dataset) -> str:
    return f"{len(dataset):,} events of {dataset.num_users:,} users, {dataset.fingerprint[:12]}"


def _asked(promotion: Promotion) -> str:
    return f"{promotion.alias}, {len(promotion.gates)} gates: {promotion.state}"


def _version(published: Mapping[str, Any]) -> str:
    return f"version {published['version']}, bundle {published['bundle']}"
