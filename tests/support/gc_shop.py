"""A catalogue with versions in every kind of use, from which `tastemaker gc` is to collect."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from promotable import write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings, StateSettings, StorageSettings
from tastemaker.config_retention import RetentionSettings
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home
from tastemaker.promotion.record import PROMOTION_TAG, Promotion
from tastemaker.registry.client import Registry
from tastemaker.registry.live import Watcher
from tastemaker.registry.reports import Report
from tastemaker.retention import receipts
from tastemaker.retention.collecting import Collected, collect
from tastemaker.retention.gone import DAY_SECONDS, Limits

NUM_VERSIONS = 7


class Shop:
    """A catalogue with seven versions, each of a run of its own; champion 2 after 1, shadow 3, an experiment with version 4."""

    def __init__(self, state: Any, home: Home, folder: Path) -> None:
        self.client, self.keys, self.home, self.folder = state.client, state.keys, home, folder
        self.settings = Settings(
            catalogue=self.keys.catalogue, home=self.home.root,
            state=StateSettings(partitions=4, url=state.url), storage=StorageSettings(url=folder.as_uri()),
            retention=RetentionSettings(bundles=1, checkpoint_days=14),
        )  # fmt: skip
        self.registry = Registry(self.settings, self.home)
        self.store = BundleStore.of(self.settings, self.home)
        for number in range(1, NUM_VERSIONS + 1):
            self.publish(number)
        for number, alias in ((1, "champion"), (2, "champion"), (3, "shadow")):
            self.registry.set_alias(self.keys.catalogue, alias, number, "ann", "")
        Watcher(self.registry, self.client, self.keys).poll()
        self.experiment("version:4")

    def publish(self, number: int) -> int:
        with self.registry.run(f"train {number}") as run:
            run.log_json("offline.json", {"version": number})
        ref = write_bundle(self.store, catalogue=self.keys.catalogue, weight=number, marker=str(number))
        return self.registry.publish(self.keys.catalogue, ref, {}, run.id).number

    def use(self, use: str, number: int) -> None:
        """Brings a version into use."""
        version = self.registry.version(self.keys.catalogue, number)
        if use == "experiment":
            self.experiment(f"version:{number}", "late")
        elif use == "replica":
            report = Report(1, (version.sha256,), time.time_ns() // 1_000_000)
            self.client.hset(self.keys.ready, "ranker/3f", report.encode())
        else:
            promotion = Promotion(
                catalogue=self.keys.catalogue, version=number, alias="champion", bundle=version.sha256, state="waiting"
            )  # fmt: skip
            self.registry.tag(
                self.keys.catalogue, number, {f"{PROMOTION_TAG}champion": promotion.model_dump_json()}
            )

    def experiment(self, alias: str, name: str = "try") -> None:
        content = {
            "name": name, "hypothesis": "h", "salt": "s", "state": "draft",
            "variants": [{"name": "control", "alias": "champion"}, {"name": "other", "alias": alias}],
            "allocation": {"kind": "fixed", "weights": [0.5, 0.5]},
        }  # fmt: skip
        ExperimentStore(self.client, self.keys).create(Experiment.parse(content, "test"))

    def collect(self, *, dry_run: bool = False, **retention: Any) -> Collected:
        settings = self.settings.model_copy(
            update={"retention": self.settings.retention.model_copy(update=retention)}
        )
        return collect(settings, self.home, self.client, self.keys, dry_run=dry_run)

    def numbers(self) -> list[int]:
        return [version.number for version in self.registry.versions(self.keys.catalogue)]

    def check(self) -> None:
        """Every version's bundle is whole."""
        for version in self.registry.versions(self.keys.catalogue):
            Bundle.open(self.store, version.ref)

    def files(self) -> set[str]:
        """Of the store and of MLflow."""
        folders = (self.folder, self.home / "mlflow" / "artifacts")
        return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file()}

    def receipts(self) -> list[dict[str, Any]]:
        lines = (self.home / "logs" / receipts.RECEIPTS).read_text().splitlines()
        return [one for line in lines if (one := json.loads(line))["catalogue"] == self.keys.catalogue]


def names(done: Collected, kind: str) -> list[str]:
    """What went of a kind."""
    return [one.name for one in done.of(kind)]


def forty_days_on(monkeypatch: pytest.MonkeyPatch) -> float:
    """Lets forty days go by for whoever asks what is old; gives the moment, Unix seconds."""
    moment = time.time() + 40 * DAY_SECONDS
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, settings: cls(settings, moment)))
    return moment
