"""What a report advises and why: simulated experiments whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from experiment_log import DAY_MS, START_MS, decision, event, experiment, write

from tastemaker.experiments.definition import Guardrail, Variant
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting.report import ExperimentReport, build_report
from tastemaker.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


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
