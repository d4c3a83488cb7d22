"""A report from Parquet days: every number by hand."""

from pathlib import Path

import numpy as np
import pytest
from experiment_log import DAY_MS, START_MS, WINDOW_MS, decision, event, experiment, write

from tastemaker.errors import ConfigError, DataError, ExperimentError, NothingYetError
from tastemaker.events.archive import EVENT_SCHEMA, read_days, write_days
from tastemaker.events.log import Entry
from tastemaker.experiments.decision_log import (
    DECISION_SCHEMA,
    Decision,
    decision_table,
    decode_decision,
    encode_decision,
)
from tastemaker.experiments.definition import Guardrail, Thompson, Variant
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting.report import ExperimentReport, build_report
from tastemaker.experiments.reporting.words import moment
from tastemaker.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


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
    # 2/1 * (.25 + .25) / 2^2 = 1/4, so the difference's error is .5, over the logarithmic mean .5 / log(1.5) that of the log is
    # log(1.5) (larger than the delta method's .5 / 1.5), and the interval 1.5 * 1.5^(+-1.96).
    assert report.lifts[0].low == pytest.approx(1.5 ** (1 - 1.959964) - 1, abs=1e-6)
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
    found = build_report(home, "shop", experiment(), now_ms=START_MS + 50_000)
    assert (found.srm_alarm, found.advice.verdict) == (True, "look at SRM first")
    assert "(100 of 300 to b, 33.3% instead of 50.0%)" in found.advice.reason  # or as many too many to a


def test_an_experiment_without_decisions_has_no_report(home: Home) -> None:
    with pytest.raises(ExperimentError, match="no decision whose window has closed"):
        build_report(home, "shop", experiment(), now_ms=START_MS)
    with pytest.raises(ConfigError, match="metric, is 'happiness'"):
        build_report(home, "shop", experiment(), "happiness", now_ms=START_MS)


def test_whose_windows_are_all_open_says_when_the_first_one_closes(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 60_000), decision("r2", "u2", "b", 500)], [])
    closes_ms = START_MS + 500 + experiment().attribution_window_ms
    with pytest.raises(
        NothingYetError, match=f"whose window has closed: the first one closes at {moment(closes_ms)} UTC"
    ):
        build_report(home, "shop", experiment(), now_ms=closes_ms - 1)


def test_decisions_of_a_strange_variant_are_refused(home: Home) -> None:
    write(home, [decision("r1", "u1", "zebra", 1)], [event("r1", "x", 5)])
    with pytest.raises(ExperimentError, match="zebra"):
        build_report(home, "shop", experiment(), now_ms=START_MS + 50_000)


def clicking(home: Home, rates: dict[str, float], units: int, days: int = 1, seed: int = 0) -> None:
    """Units of every variant ask once on each day, and click on x at a rate."""
    luck = np.random.default_rng(seed)
    decisions, events = [], []
    for day in range(days):
        for n in range(units):
            for v, rate in rates.items():
                at_ms, name = day * DAY_MS + n, f"{v}{n}-{day}"
                devices = {"device": ("tv", "mobile")[n % 2]}
                fields = {"propensities": (1 / len(rates),) * len(rates), "context": devices}
                decisions.append(decision(name, f"{v}{n}", v, at_ms, **fields))
                if luck.random() < rate:
                    events.append(event(name, "x", at_ms + 1, user_id=f"{v}{n}"))
    write(home, decisions, events)


def test_a_clear_winner_is_to_be_shipped_and_a_clear_loser_stopped(home: Home) -> None:
    clicking(home, {"a": 0.2, "b": 0.4}, 600)
    report = build_report(home, "shop", experiment(), now_ms=START_MS + DAY_MS)
    assert (report.advice.verdict, report.advice.variant) == ("ship", "b")
    assert report.advice.cautions == ("it ran for less than a week: days of the week may differ",)
    primary = report.metrics[0]
    assert primary.name == report.metric == "clicks_per_request"
    assert primary.probability_best is not None
    assert primary.probability_best[1] > 0.999
    (one,) = primary.comparisons
    assert None not in (one.lift.low, one.always_valid.low, one.always_valid.high, one.lift.high)
    assert one.always_valid.low < one.lift.low < one.lift.high < one.always_valid.high  # type: ignore[operator]
    assert len(report.looks) == 20
    last = report.looks[-1]
    assert last.units == report.units == 1200
    assert last.always_valid[0] == one.always_valid
    assert last.fixed[0] == one.lift

    turned = experiment(variants=(Variant(name="b", alias="champion"), Variant(name="a", alias="other")))
    loser = build_report(home, "shop", turned, now_ms=START_MS + DAY_MS)
    assert loser.advice.verdict == "stop"
    assert "a is worse than the control" in loser.advice.reason


def test_nothing_certain_is_to_be_kept_running_and_says_how_much_is_missing(home: Home) -> None:
    clicking(home, {"a": 0.3, "b": 0.3}, 200)
    report = build_report(home, "shop", experiment(), now_ms=START_MS + DAY_MS)
    assert report.advice.verdict == "keep running"
    # log(1.05) / (1.96 + .84) = .0174 is wanted; with clicks of 60 in 200 twice the error is near sqrt(2 * .7 / .3 / 200) = .153
    # and 400 * ((.153 / .0174)^2 - 1) = 30,500 units are missing.
    missing = int(report.advice.reason.split("about ")[1].split(" more units")[0].replace(",", ""))
    stopped = build_report(home, "shop", experiment(state="stopped"), now_ms=START_MS + DAY_MS)
    assert "it does not run: what is missing comes only if it is started again" in stopped.advice.cautions
    assert missing == pytest.approx(30_500, rel=0.3)  # luck moves the rates


def test_no_effect_worth_finding_ends_it(home: Home) -> None:
    clicking(home, {"a": 0.5, "b": 0.5}, 1500)
    wide = experiment(minimum_detectable_effect=0.3)
    report = build_report(home, "shop", wide, now_ms=START_MS + DAY_MS)
    assert report.advice.verdict == "stop"
    assert "no variant changes clicks_per_request by 30.0% or more" in report.advice.reason


def test_a_wrong_split_comes_before_everything(home: Home) -> None:
    decisions = [decision(f"r{i}", f"u{i}", "a" if i % 3 else "b", i) for i in range(300)]
    write(home, decisions, [event(f"r{i}", "x", 5) for i in range(0, 300, 3)])
    report = build_report(home, "shop", experiment(), now_ms=START_MS + 50_000)
    assert report.advice.verdict == "look at SRM first"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_may_be_the_one_to_judge_by(home: Home, metric: str) -> None:
    clicking(home, {"a": 0.3, "b": 0.4}, 30)
    report = build_report(home, "shop", experiment(), metric, now_ms=START_MS + 9 * DAY_MS)
    assert report.metric == report.metrics[0].name == metric
    assert sorted(one.name for one in report.metrics) == sorted(METRICS)
    assert report.advice.verdict == "keep running"
    assert ExperimentReport.model_validate_json(report.model_dump_json()) == report


def test_a_ramp_is_no_wrong_split(home: Home) -> None:
    early = [
        decision(f"r{i}", f"u{i}", "b" if i % 10 == 0 else "a", i, propensities=(0.9, 0.1))
        for i in range(1000)
    ]
    late = [decision(f"s{i}", f"v{i}", "ab"[i % 2], 2000 + i) for i in range(500)]
    write(home, early + late)
    report = build_report(home, "shop", experiment(), now_ms=START_MS + DAY_MS)
    assert report.srm_p_value == pytest.approx(1.0)
    assert not report.srm_alarm


def test_several_variants_and_metrics_are_corrected(home: Home) -> None:
    variants = tuple(Variant(name=name, alias="champion") for name in "abc")
    clicking(home, {"a": 0.3, "b": 0.3, "c": 0.45}, 300)
    three = experiment(variants=variants, allocation={"kind": "fixed", "weights": (1 / 3, 1 / 3, 1 / 3)})
    report = build_report(home, "shop", three, now_ms=START_MS + DAY_MS)
    p = [one.p_value for one in report.metrics[0].comparisons]
    assert None not in p
    least, other = sorted(p)  # type: ignore[type-var]
    assert least is not None
    assert other is not None
    corrected = {one.p_value: one.corrected_p_value for one in report.metrics[0].comparisons}
    assert corrected[least] == pytest.approx(2 * least)  # Holm: the least times 2, the other as it is
    assert corrected[other] == pytest.approx(max(2 * least, other))
    assert [one.variant for one in report.lifts] == ["b", "c"]
    assert {(one.kind, one.name) for one in report.segments} >= {("device", "tv"), ("device", "mobile")}


def test_what_units_did_before_takes_variance_away(home: Home) -> None:
    luck = np.random.default_rng(3)
    decisions, events = [], []
    for n in range(400):
        eager, v, unit = n % 2, "ab"[n // 2 % 2], f"u{n}"
        events += [event(None, f"z{k}", -DAY_MS - k, user_id=unit) for k in range(1 + 6 * eager)]
        for k in range(4):
            decisions.append(decision(f"{n}-{k}", unit, v, n + k))
            if luck.random() < (0.9 if eager else 0.1):
                events.append(event(f"{n}-{k}", "x", n + k + 1, user_id=unit))
    write(home, decisions, events)
    (one,) = build_report(home, "shop", experiment(), now_ms=START_MS + DAY_MS).metrics[0].comparisons
    # A unit's rate is .1 or .9 and its mean of four adds .09/4: the share between the two halves is .16 / (.16 + .0225) = .88.
    assert one.variance_removed == pytest.approx(0.88, abs=0.04)
    assert None not in (one.adjusted.high, one.adjusted.low, one.lift.high, one.lift.low)
    assert one.adjusted.high - one.adjusted.low < 0.5 * (one.lift.high - one.lift.low)  # type: ignore[operator]


def test_an_effect_that_fades_is_told(home: Home) -> None:
    luck = np.random.default_rng(1)
    decisions, events = [], []
    for n in range(1500):
        for day in range(6):
            name, v = f"{n}-{day}", "ab"[n % 2]
            decisions.append(decision(name, f"u{n}", v, day * DAY_MS + n))
            if luck.random() < 0.3 + 0.3 * (v == "b") * 0.5**day:
                events.append(event(name, "x", day * DAY_MS + n + 1, user_id=f"u{n}"))
    write(home, decisions, events)
    report = build_report(home, "shop", experiment(), now_ms=START_MS + 7 * DAY_MS)
    (trend,) = report.trends
    assert trend.fades
    assert trend.high < 0
    assert "the lift of b fades" in " ".join(report.advice.cautions)


def test_a_guardrail_with_a_margin_holds_a_winner_back_until_it_is_certain(home: Home) -> None:
    clicking(home, {"a": 0.2, "b": 0.4}, 600)
    guardrails = (
        Guardrail(metric="conversion", margin=0.1),
        Guardrail(metric="rewarded_requests", margin=0.1),
    )
    report = build_report(home, "shop", experiment(guardrails=guardrails), now_ms=START_MS + DAY_MS)
    assert [(one.metric, one.state) for one in report.guardrails] == [
        ("conversion", "open"), ("rewarded_requests", "kept"),
    ]  # fmt: skip
    assert (report.advice.verdict, report.advice.variant) == ("keep running", "b")
    assert "conversion of b has no value yet" in report.advice.reason


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
    assert Decision(**{name: value for name, value in row.items() if value not in ([], None)}) == one


def test_a_day_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "day=2025-06-15"
    folder.mkdir()
    (folder / "part-1.parquet").write_bytes(b"half written")
    with pytest.raises(DataError, match=r"part-1\.parquet"):
        read_days(tmp_path, EVENT_SCHEMA, "event_id")
