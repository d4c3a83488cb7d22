"""Metrics of what no request passes through: the memory of Redis/Valkey, trainings in the home, what was shown lately."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis

from tastemaker import telemetry
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.state.connection import nodes_of, state_errors
from tastemaker.types import Origin
from tastemaker_services.stream.calibration import (
    BUCKETS,
    WINDOWS_MS,
    Calibrated,
    ScoreKinds,
    measure_calibration,
)
from tastemaker_services.stream.exposure import measure_exposure

OFTEN_SECONDS: Final = 15.0
SELDOM_SECONDS: Final = 300.0
_HOUR_MS: Final = 3_600_000
_FITS: Final = ("two-tower", "ranker", "workers")
"""Folders of fits below `checkpoints`; `workers` is of a training that is under way."""
_VALIDATION: Final = "validation_"
_ROWS_PER_SECOND: Final = "rows_per_second"
log = logging.getLogger(__name__)


class HomeGauges:
    """Sets them every now and then. For one thread."""

    def __init__(self, settings: Settings, home: Home, client: redis.Redis, cache: redis.Redis) -> None:
        self._catalogue, self._home = settings.catalogue, home
        self._stores = {"state": client} if cache is client else {"state": client, "cache": cache}
        self._scores = ScoreKinds(BundleStore.of(settings, home), settings.catalogue)
        self._often_at = self._seldom_at = 0.0
        self._told: set[str] = set()

    def tell(self) -> None:
        """Whatever is due.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        now = time.monotonic()
        if now >= self._often_at:
            self._often_at = now + OFTEN_SECONDS
            self.tell_training()
            self.tell_memory()
        if now >= self._seldom_at:
            self._seldom_at = now + SELDOM_SECONDS
            now_ms = time.time_ns() // 1_000_000
            self.tell_exposure(now_ms)
            self.tell_calibration(now_ms)

    def tell_memory(self) -> None:
        """Memory of each store, summed over its nodes; a limit of 0 is none."""
        for store, client in self._stores.items():
            with state_errors("read the memory of Redis/Valkey"):
                found: list[Any] = [node.info("memory") for node in nodes_of(client)]
            for kind, name in (("used", "used_memory"), ("limit", "maxmemory")):
                value = sum(int(info.get(name, 0)) for info in found)
                telemetry.STATE_BYTES.labels(self._catalogue, store, kind).set(value)

    def tell_exposure(self, now_ms: int) -> None:
        """How the lists of the last hour spread over the catalogue."""
        try:
            found = measure_exposure(self._home, self._catalogue, now_ms - _HOUR_MS, now_ms)
        except DataError as error:
            log.info("what was shown cannot be measured yet: %s", error)
            return
        for figure, value in found.items():
            telemetry.QUALITY.labels(self._catalogue, figure).set(value)

    def tell_calibration(self, now_ms: int) -> None:
        """Expected and observed clicks of an hour of each origin, the newest whose clicks are all in."""
        for origin, window_ms in WINDOWS_MS.items():
            until_ms = now_ms - window_ms
            found: Calibrated | None = None
            try:
                found = measure_calibration(
                    self._home,
                    self._catalogue,
                    self._scores.is_probability,
                    until_ms - _HOUR_MS,
                    until_ms,
                    origin,
                )
            except DataError as error:
                log.info("calibration of %s cannot be measured yet: %s", origin, error)
            self._set_calibration(origin, found)

    def _set_calibration(self, origin: Origin, found: Calibrated | None) -> None:
        told = (self._catalogue, origin)
        telemetry.CALIBRATION_ERROR.labels(*told).set(found.error if found else math.nan)
        for b, bucket in enumerate(BUCKETS):
            rates = {
                "expected": float(found.expected_B[b]) if found else math.nan,
                "observed": float(found.observed_B[b]) if found else math.nan,
            }
            for figure, rate in rates.items():
                telemetry.CALIBRATION.labels(*told, bucket, figure).set(rate)
            slots = int(found.slots_B[b]) if found else 0
            telemetry.CALIBRATION_SLOTS.labels(*told, bucket).set(slots)

    def tell_training(self) -> None:
        """The newest fit of each kind that the home keeps."""
        for kind in _FITS:
            folder = _newest(self._home / "checkpoints", kind)
            if folder is not None:
                self._tell_fit(kind, folder)
            elif kind in self._told:  # a training that has ended has no checkpoint of its own any more
                telemetry.TRAINING_CHECKPOINT.labels(self._catalogue, kind).set(math.nan)

    def _tell_fit(self, kind: str, folder: Path) -> None:
        for report in _reports(folder / "curves.jsonl"):
            fit = f"{kind}/{report['fit']}" if "fit" in report else kind
            if "plan" in report:
                self._tell_tables(fit, report["plan"])
            if "epoch" in report:
                self._tell_epoch(fit, report)
        written = max(_times(folder), default=None)
        if written is not None:
            self._told.add(kind)
            telemetry.TRAINING_CHECKPOINT.labels(self._catalogue, kind).set(written)

    def _tell_epoch(self, fit: str, report: Mapping[str, Any]) -> None:
        telemetry.TRAINING_EPOCH.labels(self._catalogue, fit).set(report["epoch"])
        telemetry.TRAINING_LOSS.labels(self._catalogue, fit).set(report["loss"])
        if _ROWS_PER_SECOND in report:  # trainings of an earlier release did not say
            telemetry.TRAINING_ROWS.labels(self._catalogue, fit).set(report[_ROWS_PER_SECOND])
        for name, value in report.items():
            if name.startswith(_VALIDATION):
                metric = name.removeprefix(_VALIDATION)
                telemetry.TRAINING_VALIDATION.labels(self._catalogue, fit, metric).set(value)

    def _tell_tables(self, fit: str, plan: list[dict[str, Any]]) -> None:
        sizes: dict[int, int] = {}
        for shard in plan:
            sizes[shard["rank"]] = sizes.get(shard["rank"], 0) + shard["num_bytes"]
        for rank, size in sizes.items():
            telemetry.TRAINING_TABLES.labels(self._catalogue, fit, str(rank)).set(size)


def _newest(folder: Path, kind: str) -> Path | None:
    found = [path for path in folder.glob(f"{kind}-*") if (path / "curves.jsonl").is_file()]
    return max(found, key=_modified, default=None)


def _modified(folder: Path) -> float:
    with suppress(FileNotFoundError):  # a training that ends removes what it no longer needs
        return (folder / "curves.jsonl").stat().st_mtime
    return 0.0


def _times(folder: Path) -> Iterator[float]:
    """When what a training can go on from was written: of a fit that has ended its last file."""
    for path in (*folder.glob("checkpoints/*"), folder / "complete.json"):
        with suppress(FileNotFoundError):
            yield path.stat().st_mtime


def _reports(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a curve that are whole; the last one may be under way."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return
    loads: Callable[[str], Any] = json.loads
    for line in lines:
        with suppress(ValueError):
            report = loads(line)
            if isinstance(report, dict):
                yield report
