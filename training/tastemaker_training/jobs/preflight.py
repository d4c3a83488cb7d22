"""What a job would do, found out without doing it: config, data and connections are looked at, and nothing is trained or moved.

Never imports Ray: whether its cluster has room is seen when a job begins. Not for a running installation (`tastemaker.doctor`).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from tastemaker.config import Settings
from tastemaker.data.log import read_log
from tastemaker.data.schema import Dataset
from tastemaker.doctor.finding import Finding, worst
from tastemaker.doctor.serving_checks import check_disk
from tastemaker.errors import MissingExtraError, TastemakerError
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker_training.jobs.batch import check_k, lists_file
from tastemaker_training.jobs.refresh import vectors_file
from tastemaker_training.jobs.schedules import Order, check_order, rehearse
from tastemaker_training.jobs.user_scoring import ChampionsUsers, is_made_from
from tastemaker_training.studies.study import Study, check_same, latest

T = TypeVar("T")


@dataclass
class Preflight:
    """Findings so far, and what would be done, step by step."""

    settings: Settings
    home: Home
    findings: list[Finding] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    @property
    def is_fit(self) -> bool:
        """Whether nothing failed: the job may begin."""
        return worst(self.findings) != "failed"

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        findings = [asdict(one) for one in self.findings]
        return {"dry_run": True, "fit": self.is_fit, "findings": findings, "would": self.steps}

    def look(self, check: str, read: Callable[[], T], say: Callable[[T], str]) -> T | None:
        """What `read` gives, told by `say`; None where it fails, which is a finding."""
        try:
            found = read()
        except TastemakerError as error:
            mend = error.mend or ""
            self.findings.append(Finding(check, "failed", str(error).removesuffix(f": {mend}"), mend))
            return None
        self.findings.append(Finding(check, "ok", say(found)))
        return found

    def ground(self) -> None:
        """Disk, Ray's package and the registry, which every job needs."""
        self.findings += check_disk(self.home)
        self.look("ray", self._check_ray, str)
        catalogue = self.settings.catalogue
        self.look(
            "registry",
            lambda: Registry(self.settings, self.home).aliases(catalogue),
            lambda found: ", ".join(f"{a} {v.number}" for a, v in found.items()) or "no aliases yet",
        )

    def log(self) -> Dataset | None:
        """The catalogue's data as of now."""
        return self.look("log", lambda: read_log(self.home, self.settings.catalogue), _describe)

    def users(self) -> ChampionsUsers | None:
        """The users of the log, and the champion with every file of it."""
        return self.look(
            "users",
            lambda: ChampionsUsers.of(self.settings, self.home),
            lambda one: (
                f"{len(one.histories):,} of {one.dataset.num_users:,} of the log know an item of the champion, "
                f"bundle {one.bundle.bundle_id}"
            ),
        )

    def _check_ray(self) -> str:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("the job needs Ray", mend="pip install 'tastemaker[train]'")
        address = self.settings.ray.address
        return f"joins the cluster at {address}" if address else "starts a session on this machine"


def refresh_users(settings: Settings, home: Home) -> Preflight:
    """Of `tastemaker refresh-users`."""
    flight = Preflight(settings, home)
    flight.ground()
    if (users := flight.users()) is not None:
        file = vectors_file(home, settings.catalogue, users.bundle.bundle_id)
        made_from = users.made_from | {"history_length": settings.state.history_length}
        if is_made_from(file, made_from):
            flight.steps.append(f"nothing to encode: {file} is of this log")
        else:
            flight.steps.append(f"encode {len(users.histories):,} users into {file}")
    return flight


def batch(settings: Settings, home: Home, k: int, keep_seconds: int) -> Preflight:
    """Of `tastemaker batch`; the arguments are those of `batch.recommend_all`."""
    flight = Preflight(settings, home)
    flight.look("--k", lambda: check_k(k, settings), lambda _: f"{k} items a list")
    flight.ground()
    flight.look("state", lambda: _state(settings, home), str)
    if (users := flight.users()) is not None:
        file = lists_file(home, settings.catalogue, users.bundle.bundle_id)
        flight.steps.append(
            f"recommend {k} items to {len(users.histories):,} users, unless {file} is of this log"
        )
        flight.steps.append(f"write each list online, for {keep_seconds:,} s")
    return flight


def retrain(settings: Settings, home: Home, order: Order) -> Preflight:
    """Of `tastemaker retrain`: up to the training, data gate included."""
    flight = Preflight(settings, home)
    flight.look("order", lambda: check_order(order, settings), lambda _: f"recipe {order.recipe.name}")
    flight.ground()
    if (dataset := flight.log()) is None:
        return flight
    found = flight.look("data gate", lambda: rehearse(settings, home, order, dataset), lambda one: one.gate)
    if found is not None and found.same is not None:
        flight.steps = [f"nothing: {found.same}"]
    elif found is not None:
        begun = f"from training {found.warm_start}" if found.warm_start else "from scratch"
        flight.steps += [
            f"train {order.recipe.name} on {order.num_workers} workers, {begun}",
            f"publish it, and promote it to {order.to} if it passes the gates",
        ]
    return flight


def tune(
    settings: Settings, home: Home, wanted: Callable[[], Study], *, resume: bool, publish: bool
) -> Preflight:
    """Of `tastemaker tune`.

    Args:
        settings: Of the catalogue.
        home: Its home.
        wanted: Reads recipe and order; what it refuses is a finding.
        resume: Whether the newest study would go on.
        publish: Whether the best would be published.
    """
    flight = Preflight(settings, home)
    study = flight.look("order", wanted, lambda one: f"{one.part} of recipe {one.recipe.name}")
    flight.ground()
    if flight.log() is None or study is None:
        return flight
    if resume:
        flight.look("study", lambda: _resumed(settings, home, study), lambda one: f"{one.name} goes on")
    else:
        flight.steps.append("begin a study of the log as of now")
    config, spaces = study.recipe.tune, ", ".join(study.spaces)
    flight.steps.append(f"try {config.num_trials} times, {config.concurrency} at once: {spaces}")
    if publish:
        flight.steps.append("train the best whole, and publish it as a version that no alias names")
    return flight


def _state(settings: Settings, home: Home) -> str:
    if settings.state.url is None:
        return "starts the embedded Valkey where it does not run"
    with connect(url_of(settings, home)) as client, state_errors("reach Redis/Valkey"):
        client.ping()
    return "answers"


def _resumed(settings: Settings, home: Home, wanted: Study) -> Study:
    study = latest(home, settings, wanted.recipe, wanted.part)
    check_same(study, wanted)
    return study


def _describe(dataset: Dataset) -> str:
    return f"{len(dataset):,} events of {dataset.num_users:,} users"
