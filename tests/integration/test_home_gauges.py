"""Metrics of what no request passes through, on a real Valkey and a real home."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import START_MS, decision, event, experiment, raw

from tastemaker import telemetry
from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.errors import DataError, RegistryError
from tastemaker.events.archive import event_table, write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home
from tastemaker.promotion.gate import GateResult
from tastemaker.promotion.record import GATE_TAG
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker_services.admin.gate_gauges import GatesTold
from tastemaker_services.stream.calibration import BUCKETS, Calibrated
from tastemaker_services.stream.exposure import measure_exposure
from tastemaker_services.stream.guarding import Guard
from tastemaker_services.stream.home_gauges import HomeGauges

CSV = "user_id,item_id,timestamp,kind\n" + "".join(
    f"{user},{item},{START_MS // 1000 - 60},click\n"
    for user, item in [("ann", "x"), ("bob", "x"), ("cid", "x"), ("dan", "x"), ("ann", "y"), ("bob", "z"), ("cid", "w")]
)  # fmt: skip


def value(metric: Any, *labels: str) -> float:
    """What a metric says."""
    found: float = metric.labels(*labels)._value.get()
    return found


@pytest.fixture
def home(state: Any, tmp_path: Path) -> Home:
    """One that has an import: x is everybody's, y, z and w are one user's each."""
    made, source = Home.make(tmp_path / "own-home"), tmp_path / "events.csv"
    source.write_text(CSV)
    save_import(made, state.keys.catalogue, import_events(source, ColumnMapping(kind="kind"), START_MS))
    return made


@pytest.fixture
def gauges(state: Any, home: Home) -> HomeGauges:
    """Those of the home; state and cache are one server."""
    return HomeGauges(state.settings, home, state.client, state.client)


def test_memory_is_what_the_server_says(state: Any, gauges: HomeGauges) -> None:
    gauges.tell_memory()
    catalogue = state.settings.catalogue
    used = value(telemetry.STATE_BYTES, catalogue, "state", "used")
    assert used == pytest.approx(state.client.info("memory")["used_memory"], rel=0.5)  # it goes on meanwhile
    assert (
        value(telemetry.STATE_BYTES, catalogue, "state", "limit") == state.client.info("memory")["maxmemory"]
    )


def test_exposure_by_hand(state: Any, home: Home) -> None:
    catalogue = state.keys.catalogue
    lists = {"r1": ["x", "y"], "r2": ["x"], "r3": ["gone", "x"], "r4": []}
    entries = [decision(name, name, "a", n, item_ids=ids) for n, (name, ids) in enumerate(lists.items())]
    shadow = decision("r5", "r5", "a", 5, item_ids=["z"], shadow_of="r1")
    write_days(home / "decisions" / catalogue, decision_table([*entries, shadow]))
    found = measure_exposure(home, catalogue, START_MS, START_MS + 1000)
    assert found["reach"] == 2  # x and y
    assert found["coverage"] == 2 / 4
    # Counts 0, 0, 1, 3 of 4 items: (-3*0 - 1*0 + 1*1 + 3*3) / (4 * 4)
    assert found["gini"] == pytest.approx(10 / 16)
    # x is all four users', 0 bits; y one of four's, 2 bits; lists of (0 + 2) / 2, 0 and 0
    assert found["novelty"] == pytest.approx(1 / 3)
    assert found["popular-share"] == 3 / 4  # of four slots x has three
    assert measure_exposure(home, catalogue, START_MS + 1000, START_MS + 2000) == {}


def test_exposure_of_a_home_without_import_is_left_out(state: Any, tmp_path: Path) -> None:
    empty = Home.make(tmp_path / "empty")
    write_days(empty / "decisions" / state.keys.catalogue, decision_table([decision("r", "u", "a", 0)]))
    settings = state.settings
    HomeGauges(settings, empty, state.client, state.client).tell_exposure(START_MS + 1000)
    told = [sample.labels["catalogue"] for metric in telemetry.QUALITY.collect() for sample in metric.samples]
    assert state.keys.catalogue not in told


def test_calibration_is_told_of_the_hour_whose_clicks_are_in(
    state: Any, home: Home, gauges: HomeGauges
) -> None:
    catalogue, store = state.keys.catalogue, BundleStore.of(state.settings, home)
    writer = BundleWriter(store, catalogue)
    writer.add_json("pipeline.json", {"ranking": {"score_weights": {"click": 1.0}}})
    writer.add_json("calibration.json", {})
    ref = writer.commit(BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="r", training_id="t"))
    items, scores = [f"i{n}" for n in range(100)], [0.3] * 100
    answers = [
        decision(f"r{n}", "u", "a", n, item_ids=items, scores=scores, origin="live") for n in range(10)
    ]
    of_other = decision(  # of a bundle that is gone
        "other", "u", "a", 1, item_ids=items, scores=[0.01] * 100, origin="live"
    )
    entries = [*(raw(one, bundle=ref.bundle_id) for one in answers), of_other]
    write_days(home / "decisions" / catalogue, decision_table(entries))
    clicks = [event(f"r{n}", f"i{m}", 50, origin="live") for n in range(10) for m in range(20)]
    write_days(home / "events" / catalogue, event_table(clicks))
    gauges.tell_calibration(START_MS + 1000)  # clicks are still coming
    assert math.isnan(value(telemetry.CALIBRATION_ERROR, catalogue, "live"))
    gauges.tell_calibration(START_MS + 2 * 3_600_000)
    assert value(telemetry.CALIBRATION_ERROR, catalogue, "live") == pytest.approx(0.1)  # |.2 - .3|
    assert value(telemetry.CALIBRATION, catalogue, "live", "0.2-0.5", "expected") == pytest.approx(0.3)
    assert value(telemetry.CALIBRATION, catalogue, "live", "0.2-0.5", "observed") == pytest.approx(0.2)
    assert value(telemetry.CALIBRATION_SLOTS, catalogue, "live", "0.2-0.5") == 1000
    assert math.isnan(value(telemetry.CALIBRATION, catalogue, "live", "0.5-1", "observed"))
    assert math.isnan(value(telemetry.CALIBRATION_ERROR, catalogue, "simulator"))


def test_calibration_that_cannot_be_measured_is_told_as_unknown_and_hides_no_other(
    state: Any, gauges: HomeGauges, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: list[str] = []

    def measured(*asked: Any) -> Calibrated:
        if asked[-1] in bad:
            raise DataError("a day cannot be read", mend="mend it")
        rate_B = np.full(len(BUCKETS), 0.5)
        return Calibrated(np.ones(len(BUCKETS), np.int64), rate_B, rate_B - 0.1)

    monkeypatch.setattr("tastemaker_services.stream.home_gauges.measure_calibration", measured)

    def error_of(origin: str) -> float:
        return value(telemetry.CALIBRATION_ERROR, state.settings.catalogue, origin)

    gauges.tell_calibration(START_MS)
    assert error_of("live") == error_of("simulator") == pytest.approx(0.1)
    for origin, other in (("live", "simulator"), ("simulator", "live")):
        bad[:] = [origin]
        gauges.tell_calibration(START_MS)
        assert math.isnan(error_of(origin))
        assert error_of(other) == pytest.approx(0.1)


def test_a_training_shows_while_it_runs(state: Any, home: Home, gauges: HomeGauges) -> None:
    catalogue = state.settings.catalogue
    folder = home / "checkpoints" / "workers-1"
    folder.mkdir(parents=True)
    plan = [{"rank": 0, "num_bytes": 100}, {"rank": 1, "num_bytes": 30}, {"rank": 0, "num_bytes": 20}]
    lines = [
        {"fit": "train", "plan": plan},
        {"fit": "train", "epoch": 1, "loss": 6.0, "validation_ndcg@10": 0.1},
        {"fit": "train", "epoch": 2, "loss": 5.0, "rows_per_second": 1234.5, "validation_ndcg@10": 0.2},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "curves.jsonl").write_text(text + '{"fit": "train", "epo')  # a line under way
    (folder / "checkpoints" / "c1").mkdir(parents=True)
    gauges.tell_training()
    fit = (catalogue, "workers/train")
    assert value(telemetry.TRAINING_EPOCH, *fit) == 2
    assert value(telemetry.TRAINING_LOSS, *fit) == 5.0
    assert value(telemetry.TRAINING_ROWS, *fit) == 1234.5
    assert value(telemetry.TRAINING_VALIDATION, *fit, "ndcg@10") == 0.2
    assert value(telemetry.TRAINING_TABLES, *fit, "0") == 120
    assert value(telemetry.TRAINING_TABLES, *fit, "1") == 30
    written = value(telemetry.TRAINING_CHECKPOINT, catalogue, "workers")
    assert written == (folder / "checkpoints" / "c1").stat().st_mtime
    shutil.rmtree(folder)
    gauges.tell_training()
    assert math.isnan(value(telemetry.TRAINING_CHECKPOINT, catalogue, "workers"))


def test_the_guard_tells_metrics_lifts_and_advice(state: Any) -> None:
    ago_ms = time.time_ns() // 1_000_000 - START_MS - 20_000
    ExperimentStore(state.client, state.keys).create(experiment())
    decisions, events = [], []
    for variant, one_in in {"a": 4, "b": 2}.items():
        for n in range(400):
            name = f"{variant}{n}"
            decisions.append(decision(name, name, variant, ago_ms + n))
            events.append(event(name, "x", ago_ms + n + 3, kind="impression"))
            if n % one_in == 0:
                events.append(event(name, "x", ago_ms + n + 5))
    catalogue = state.settings.catalogue
    write_days(state.home / "decisions" / catalogue, decision_table(decisions))
    write_days(state.home / "events" / catalogue, event_table(events))
    assert Guard(state.settings, state.home).look(START_MS + ago_ms + 60_000) == []
    for metric in ("clicks_per_request", "clicks_per_impression"):
        rates = {v: value(telemetry.EXPERIMENT_METRIC, catalogue, "exp", v, metric, "value") for v in "ab"}
        assert rates == pytest.approx({"a": 0.25, "b": 0.5})
    lift = {
        bound: value(telemetry.EXPERIMENT_LIFT, catalogue, "exp", "b", "clicks_per_request", bound)
        for bound in ("low", "value", "high")
    }
    assert lift["value"] == pytest.approx(1.0)  # 0.5 / 0.25 - 1
    assert 0 < lift["low"] < 1 < lift["high"]
    told = {
        v: value(telemetry.EXPERIMENT_ADVICE, catalogue, "exp", v) for v in ("ship", "stop", "keep running")
    }
    assert sum(told.values()) == 1
    assert told["stop"] == 0


class Tags:
    """A registry's tags; `broken` cannot be read."""

    def __init__(self, **gates: GateResult) -> None:
        self.found = {GATE_TAG + name: gate.model_dump_json() for name, gate in gates.items()}
        self.broken, self.asked = False, 0

    def tags(self, catalogue: str, number: int) -> dict[str, str]:
        """All of a version's."""
        self.asked += 1
        if self.broken:
            raise RegistryError("away")
        return self.found


class Still:
    """A watcher whose aliases stay."""

    def poll(self) -> LiveAliases:
        """What is live."""
        return LiveAliases(
            generation=1, aliases={"champion": LiveVersion(version=7, uri="u", sha256="0" * 64)}
        )


def test_gates_are_told_once_an_alias_moves_and_never_stop_the_watching() -> None:
    kept = GateResult(name="calibration", outcome="passed", value=0.01, limit=0.05)
    registry = Tags(calibration=kept, exposure=GateResult(name="exposure", outcome="refused"))
    told = GatesTold(Still(), registry, "gates-shop")  # type: ignore[arg-type]
    assert told.poll().generation == 1
    assert told.poll().generation == 1
    assert registry.asked == 1
    assert value(telemetry.GATES, "gates-shop", "champion", "passed") == 1
    assert value(telemetry.GATES, "gates-shop", "champion", "refused") == 1
    assert value(telemetry.GATE_VALUE, "gates-shop", "champion", "calibration", "value") == 0.01
    assert value(telemetry.GATE_VALUE, "gates-shop", "champion", "calibration", "limit") == 0.05
    registry.broken = True
    assert GatesTold(Still(), registry, "gates-shop").poll().generation == 1  # type: ignore[arg-type]
