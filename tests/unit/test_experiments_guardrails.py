"""Guardrails: what is a breach, what is not, and how seldom luck alone is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, event, experiment, write

from tastemaker.errors import ConfigError
from tastemaker.experiments.definition import Guardrail, Thompson
from tastemaker.experiments.reporting.guardrails import GuardrailReport, breached, check_guardrails
from tastemaker.experiments.reporting.observations import read_observations
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def traffic(home: Home, a: float, b: float, units: int, seed: int = 0, **fields: Any) -> None:
    """Units of both variants that ask twice each, and click at a rate of their own whose mean is the variant's."""
    luck = np.random.default_rng(seed)
    decisions, events = [], []
    for n in range(units):
        for v, rate in (("a", a), ("b", b)):
            own = rate * luck.uniform(0.5, 1.5)
            for k in (0, 1):
                name, at_ms = f"{v}{n}-{k}", 10 * n + 5000 * k
                decisions.append(decision(name, f"{v}{n}", v, at_ms, **(fields if v == "b" else {})))
                if luck.random() < own:
                    events.append(event(name, "x", at_ms + 1, user_id=f"{v}{n}"))
    write(home, decisions, events)


def check(home: Home, *guardrails: Guardrail, **fields: Any) -> tuple[GuardrailReport, ...]:
    one = experiment(guardrails=guardrails, **fields)
    seen = read_observations(home, CATALOGUE, one, START_MS + DAY_MS)
    return check_guardrails(seen, Weighing(one, 0.95, 1))


CLICKS = Guardrail(metric="clicks_per_request", margin=0.05)


def test_a_variant_that_loses_more_than_the_margin_breaches(home: Home) -> None:
    traffic(home, 0.4, 0.2, 500)
    (report,) = check(home, CLICKS)
    assert report.state == "breached"
    assert report.value == pytest.approx(0.2, abs=0.03)
    assert report.control == pytest.approx(0.4, abs=0.03)
    assert report.value is not None
    assert report.control is not None
    assert report.slack.value == pytest.approx(report.value - 0.95 * report.control)
    assert report.slack.high is not None
    assert report.slack.high < 0
    assert "clicks_per_request of b is 0.2" in report.reason
    assert "must be at least 0.3" in report.reason


def test_a_better_one_keeps_it_and_direction_can_be_turned(home: Home) -> None:
    traffic(home, 0.2, 0.4, 500)
    turned = Guardrail(metric="clicks_per_request", direction="lower", margin=0.05)
    kept, broken = check(home, CLICKS, turned)
    assert (kept.state, broken.state) == ("kept", "breached")
    assert broken.better == "lower"
    assert "must be at most" in broken.reason


def test_what_the_control_never_does_is_judged_without_a_ratio(home: Home) -> None:
    traffic(home, 0.3, 0.3, 150, rungs=["popular"])
    reports = check(home, Guardrail(metric="degraded_requests", margin=0.1), CLICKS)
    # Every answer of b is a fallback and none of a: no luck at all, so that there is no error to judge by.
    assert (reports[0].value, reports[0].control) == (1.0, 0.0)
    assert reports[0].state == "breached"


def test_what_nobody_had_is_kept(home: Home) -> None:
    traffic(home, 0.3, 0.3, 150)
    (report,) = check(home, Guardrail(metric="refusals_per_request", margin=0.1))
    assert (report.state, report.value, report.control) == ("kept", 0.0, 0.0)


def test_few_units_never_stop_an_experiment(home: Home) -> None:
    traffic(home, 0.9, 0.05, 99)
    (report,) = check(home, CLICKS)
    assert report.state == "open"
    assert "99 units, at least 100 are needed" in report.reason


def test_luck_alone_stops_few_experiments(home: Home) -> None:
    stopped = 0
    for seed in range(30):
        here = Home.make(home.root / str(seed))
        traffic(here, 0.3, 0.3, 150, seed)
        stopped += bool(
            breached(
                check(here, Guardrail(metric="clicks_per_request"), Guardrail(metric="rewarded_requests"))
            )
        )
    assert stopped <= 3  # 5% of 30 are 1.5


def test_draws_weigh_by_their_propensities(home: Home) -> None:
    luck = np.random.default_rng(2)
    decisions, events = [], []
    for n in range(1200):
        share = 0.2 if n < 600 else 0.8  # b gets more when everybody clicks less
        v = "b" if luck.random() < share else "a"
        decisions.append(decision(f"r{n}", f"u{n}", v, n, propensities=(1 - share, share)))
        if luck.random() < (0.6 if n < 600 else 0.2):
            events.append(event(f"r{n}", "x", n + 1))
    write(home, decisions, events)
    for fields in (
        {"allocation": Thompson(floor=0.1)},
        {},
    ):  # and so do those of a split whose weights were changed
        (report,) = check(home, CLICKS, **fields)
        assert report.value == pytest.approx(0.4, abs=0.06)  # without weights .28, of the control .52
        assert report.control == pytest.approx(0.4, abs=0.06)
        assert report.state == "open"


def test_metrics_that_units_have_no_value_of_are_refused(home: Home) -> None:
    traffic(home, 0.3, 0.3, 10)
    with pytest.raises(ConfigError, match="guardrail, is 'coverage', must be a metric that each unit has"):
        check(home, Guardrail(metric="coverage"))
