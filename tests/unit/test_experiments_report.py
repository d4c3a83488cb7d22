"""A report from Parquet days: every number by hand."""

from pathlib import Path
from typing import Any

import pytest

from tastemaker.errors import DataError, ExperimentError
from tastemaker.events.archive import EVENT_SCHEMA, event_table, read_days, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import (
    DECISION_SCHEMA,
    Decision,
    decision_table,
    decode_decision,
    encode_decision,
)
from tastemaker.experiments.definition import Experiment, Fixed, Thompson, Variant
from tastemaker.experiments.report import build_report
from tastemaker.home import Home

START_MS = 1_750_000_000_000
WINDOW_MS = 10_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def experiment(**fields: Any) -> Experiment:
    defaults = {
        "name": "exp", "hypothesis": "b is better", "salt": "s", "origin": "simulator",
        "variants": (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        "allocation": Fixed(weights=(0.5, 0.5)), "attribution_window_seconds": WINDOW_MS / 1000,
    }  # fmt: skip
    return Experiment(**defaults | fields)


def decision(request_id: str, unit: str, variant: str, at_ms: int, **fields: Any) -> Entry:
    defaults = {"experiment": "exp", "propensity": 0.5, "propensities": (0.5, 0.5), "epoch": 0}
    one = Decision(
        decision_id=f"d-{request_id}", request_id=request_id, timestamp_ms=START_MS + at_ms, catalogue="shop",
        origin="simulator", unit=unit, user_id=unit, variant=variant, bundle="b1", item_ids=["x", "y"],
        **defaults | fields,
    )  # fmt: skip
    return Entry(f"{START_MS + at_ms}-0", encode_decision(one))


def event(request_id: str, item: str, at_ms: int, kind: str = "click", **fields: Any) -> Entry:
    one = Event(
        event_id=f"{request_id}-{item}-{kind}-{at_ms}", user_id="u", item_id=item, kind=kind,
        timestamp_ms=START_MS + at_ms, request_id=request_id, **{"origin": "simulator"} | fields,
    )  # fmt: skip
    return Entry(f"{START_MS + at_ms}-0", one.model_dump_json())


def write(home: Home, decisions: list[Entry], events: list[Entry]) -> None:
    write_days(home / "decisions" / "shop", decision_table(decisions))
    write_days(home / "events" / "shop", event_table(events))


def test_every_number_of_a_small_experiment(home: Home) -> None:
    decisions = [
        decision("r1", "u1", "a", 0), decision("r2", "u1", "a", 100), decision("r3", "u2", "a", 200),
        decision("r4", "u3", "b", 300), decision("r5", "u4", "b", 399),
        decision("late", "u5", "b", 50_000),  # its window is still open
        decision("other", "u6", "b", 0, experiment="another"),
    ]  # fmt: skip
    events = [
        event("r1", "x", 10), event("r1", "x", 20), event("r1", "y", 30),  # x twice counts once: 2 clicks
        event("r3", "x", 200 + WINDOW_MS), event("r2", "x", 101 + WINDOW_MS),  # the second one is too late
        event("r4", "z", 310), event("r4", "x", 310, origin="live"),  # not in the slate; another origin
        event("r4", "x", 320), event("r5", "y", 400), event("r5", "x", 400),
        *(event(r, i, 5000, kind="impression") for r in ("r1", "r2", "r3", "r4", "r5") for i in "xy"),
    ]  # fmt: skip
    write(home, decisions, events)
    report = build_report(home, "shop", experiment(), now_ms=START_MS + 55_000)

    assert (report.units, report.requests, report.open_requests) == (4, 5, 1)
    a, b = report.variants
    assert (a.units, a.requests, a.clicks, a.impressions) == (2, 3, 3, 6)
    assert (b.units, b.requests, b.clicks, b.impressions) == (2, 2, 3, 4)
    assert (a.value, b.value) == (3 / 3, 3 / 2)
    assert (a.click_rate, b.click_rate) == (3 / 6, 3 / 4)
    assert report.lifts[0].value == pytest.approx(1.5 / 1 - 1, abs=1e-12)
    # Residuals of a: u1 2 - 1*2 = 0, u2 1 - 1 = 0. Of b: u3 1 - 1.5 = -.5, u4 2 - 1.5 = .5; Var(r_b) =
    # 2/1 * (.25 + .25) / 2^2 = 1/4, so the log's standard error is .5 / 1.5 = 1/3 and the interval 1.5 e^(+-1.96/3).
    assert report.lifts[0].low == pytest.approx(1.5 * 2.718281828 ** (-1.959964 / 3) - 1, abs=1e-6)
    assert report.srm_p_value == 1.0  # 2 and 2
    assert report.bin_ms == 10  # 400 ms in 40 bins
    assert len(report.traffic) == 40
    assert sum(sum(step.requests) for step in report.traffic) == 5
    assert report.traffic[0].new_units == (1, 0)
    assert report.traffic[10].requests == (1, 0)
    assert report.traffic[10].new_units == (0, 0)  # u1 again
    assert report.traffic[0].propensities == (0.5, 0.5)
    assert report.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("metric", "values"), [("clicks_per_request", (2.0, 0.5)), ("rewarded_requests", (1.0, 0.5)),
                           ("clicks_per_impression", (1.0, 0.25))],
)  # fmt: skip
def test_each_metric_divides_what_it_says(home: Home, metric: str, values: tuple[float, float]) -> None:
    decisions = [decision(f"r{i}", f"u{i}", "ab"[i // 2], i) for i in range(4)]
    clicks = [
        event("r0", "x", 9),
        event("r0", "y", 9),
        event("r1", "x", 9),
        event("r1", "y", 9),
        event("r2", "x", 9),
    ]
    seen = [event(f"r{i}", item, 5, kind="impression") for i in range(4) for item in "xy"]
    write(home, decisions, clicks + seen)
    report = build_report(home, "shop", experiment(), metric, now_ms=START_MS + 50_000)
    assert tuple(v.value for v in report.variants) == values


def test_a_bandits_requests_weigh_by_their_propensity(home: Home) -> None:
    bandit = experiment(allocation=Thompson(floor=0.1))
    decisions = [
        decision("r1", "u1", "b", 1, propensity=0.5, propensities=(0.5, 0.5)),
        decision("r2", "u2", "b", 2, propensity=0.8, propensities=(0.2, 0.8)),
        decision("r3", "u3", "a", 3, propensity=0.5, propensities=(0.5, 0.5)),
        decision("r4", "u4", "a", 4, propensity=0.2, propensities=(0.2, 0.8)),
    ]
    write(home, decisions, [event("r1", "x", 5), event("r4", "x", 6)])
    report = build_report(home, "shop", bandit, now_ms=START_MS + 50_000)
    # Weights of b: 2 and 1.25, a click in the first; of a: 2 and 5, a click in the second.
    assert report.variants[1].value == pytest.approx(2 / 3.25, abs=1e-12)
    assert report.variants[0].value == pytest.approx(5 / 7, abs=1e-12)
    # S of a = 1 - .5 + 1 - .2 - .5 - .2 = .6, variance .25 * 2 + .16 * 2 = .82: chi-square .36/.82 = .439, z = .663.
    assert report.srm_p_value == pytest.approx(0.5076, abs=1e-3)


def test_a_variant_without_clicks_or_units_gives_reasons_not_numbers(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 1), decision("r2", "u2", "a", 2)], [event("r1", "x", 5)])
    report = build_report(home, "shop", experiment(), now_ms=START_MS + 50_000)
    assert report.lifts[0].value is None
    assert "is 0, must be at least 2" in str(report.lifts[0].reason)
    assert report.variants[1].value is None


def test_a_split_that_lost_units_raises_the_alarm(home: Home) -> None:
    decisions = [decision(f"r{i}", f"u{i}", "a" if i % 3 else "b", i) for i in range(300)]
    write(home, decisions, [event("r1", "x", 5)])
    assert build_report(home, "shop", experiment(), now_ms=START_MS + 50_000).srm_alarm


def test_an_experiment_without_decisions_has_no_report(home: Home) -> None:
    with pytest.raises(ExperimentError, match="no decision whose window has closed"):
        build_report(home, "shop", experiment(), now_ms=START_MS)
    with pytest.raises(ExperimentError, match="metric, is 'revenue'"):
        build_report(home, "shop", experiment(), "revenue", now_ms=START_MS)


def test_decisions_of_a_strange_variant_are_refused(home: Home) -> None:
    write(home, [decision("r1", "u1", "zebra", 1)], [event("r1", "x", 5)])
    with pytest.raises(ExperimentError, match="zebra"):
        build_report(home, "shop", experiment(), now_ms=START_MS + 50_000)


def test_a_decision_comes_back_from_the_stream_and_from_parquet(tmp_path: Path) -> None:
    one = Decision(
        decision_id="d", request_id="r", timestamp_ms=5, catalogue="shop", origin="live", unit="ü", user_id="ü",
        bundle="b", experiment="e", variant="a", epoch=3, propensity=0.25, propensities=[0.25, 0.75],
        item_ids=["ü", "x"], scores=[1.5, 0.5], source_masks=[1, 6], slot_propensity=[0.5, 1.0],
        slot_propensity_kind="exact", seed=7, rungs=["cached"], context={"device": "tv"},
        timings_ms={"rank": 1.5}, feature_names=["in_session"], features=[0.0, 1.0],
    )  # fmt: skip
    assert decode_decision(encode_decision(one)) == one
    write_days(tmp_path, decision_table([Entry("9-0", encode_decision(one))]))
    row = read_days(tmp_path, DECISION_SCHEMA, "decision_id").to_pylist()[0]
    assert row.pop("received_ms") == 9
    row["context"], row["timings_ms"] = dict(row["context"]), dict(row["timings_ms"])
    assert Decision(**row) == one


def test_a_day_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "day=2025-06-15"
    folder.mkdir()
    (folder / "part-1.parquet").write_bytes(b"half written")
    with pytest.raises(DataError, match=r"part-1\.parquet"):
        read_days(tmp_path, EVENT_SCHEMA, "event_id")
