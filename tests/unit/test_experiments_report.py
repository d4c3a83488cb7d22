"""A report from Parquet days: every number by hand."""

from pathlib import Path

import pytest
from experiment_log import START_MS, WINDOW_MS, decision, event, experiment, write

from tastemaker.errors import ConfigError, ExperimentError, NothingYetError
from tastemaker.experiments.definition import Thompson
from tastemaker.experiments.reporting.report import build_report
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
