"""The page of a report: it says what the numbers say, and asks nothing of any other host."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, event, experiment, write

from tastemaker.experiments.definition import Guardrail
from tastemaker.experiments.history import Action, Change
from tastemaker.experiments.reporting.head import Stop, with_stop
from tastemaker.experiments.reporting.page import render
from tastemaker.experiments.reporting.report import ExperimentReport, build_report
from tastemaker.experiments.reporting.words import moment
from tastemaker.home import Home


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ExperimentReport:
    home, luck = Home.make(tmp_path_factory.mktemp("page") / "home"), np.random.default_rng(0)
    decisions, events = [], []
    for n in range(900):
        v = "ab"[n % 2]
        for k in range(3):
            name, at_ms = f"{n}-{k}", k * DAY_MS + n
            decisions.append(
                decision(name, f"u{n}", v, at_ms, context={"device": ("<b>tv", "tv")[n % 3 > 0]})
            )
            events.append(event(name, "x", at_ms + 1, user_id=f"u{n}", kind="impression"))
            if luck.random() < (0.2 if v == "a" else 0.35):
                events.append(event(name, "x", at_ms + 1, user_id=f"u{n}"))
    write(home, decisions, events)
    one = experiment(
        hypothesis="b <script>is</script> better",
        guardrails=(Guardrail(metric="rewarded_requests", margin=0.05),),
    )
    return build_report(home, CATALOGUE, one, now_ms=START_MS + 20 * DAY_MS)


@pytest.fixture(scope="module")
def page(report: ExperimentReport) -> str:
    return render(report)


def figure(page: str, name: str) -> dict[str, list[dict[str, object]]]:
    """What the page gives to plotly under that name."""
    found = re.search(rf"newPlot\('plot-{name}'.*?\}}\)\)\((.*?)\);</script>", page)
    assert found is not None, name
    tree: dict[str, list[dict[str, object]]] = json.loads(found.group(1).replace("<\\/", "</"))
    return tree


def test_the_page_contains_its_figures(report: ExperimentReport, page: str) -> None:
    assert report.advice.verdict.capitalize() in page
    for variant in report.variants:
        assert f"{variant.units:,}" in page
        assert f"{variant.clicks:,}" in page
    for metric in report.metrics:
        assert metric.name in page
        for one in metric.comparisons:
            if one.lift.value is not None:
                assert f"{one.lift.value:+.1%}" in page
            if one.always_valid.low is not None:
                assert f"[{one.always_valid.low:+.1%}, {one.always_valid.high:+.1%}]" in page
    assert f"p {report.srm_p_value:.4g}, at any look {report.srm_always_valid_p_value:.4g}" in page
    assert "kept</span>" in page
    assert f"{report.trends[0].slope:+.2%} a day" in page


def test_plots_have_the_reports_numbers(report: ExperimentReport, page: str) -> None:
    line = figure(page, "effect")["data"][-1]
    assert line["y"] == [look.fixed[0].value for look in report.looks if look.fixed[0].low is not None]
    wide = figure(page, "effect")["data"][1]
    assert wide["name"] == "b: always valid"
    assert wide["y"] == [
        look.always_valid[0].high for look in report.looks if look.always_valid[0].high is not None
    ]
    bars = figure(page, "traffic")["data"]
    assert [bar["y"] for bar in bars] == [[step.requests[v] for step in report.traffic] for v in (0, 1)]
    came = figure(page, "shares")["data"][1]["y"]
    assert isinstance(came, list)
    assert came[-1] == pytest.approx(report.variants[0].units / report.units)
    names = figure(page, "segments")["data"][0]["y"]
    assert isinstance(names, list)
    assert "interactions before: 0" in names
    first = figure(page, "lifts")["data"][0]
    assert first["x"][0] == report.metrics[0].comparisons[0].always_valid.value  # type: ignore[index]


def test_what_customers_wrote_stays_text(page: str) -> None:
    assert "b &lt;script&gt;is&lt;/script&gt; better" in page
    assert "device: &lt;b&gt;tv" in page


def test_a_stopped_one_says_who_stopped_it_and_why(report: ExperimentReport, page: str) -> None:
    assert "stopped by" not in page
    stop = Stop(at_ms=START_MS, actor="guardrail", reason="rewarded_requests of b < the limit")
    ended = report.model_copy(update={"state": "stopped", "stop": stop})
    assert f"stopped by guardrail, {moment(START_MS)} UTC: rewarded_requests of b &lt; the limit" in render(
        ended
    )


def test_only_the_last_stop_of_one_that_is_stopped_is_told(report: ExperimentReport) -> None:
    def change(action: Action, at_ms: int, reason: str) -> Change:
        return Change(version=1, at_ms=at_ms, actor="ann", action=action, reason=reason, changes={})

    history = [
        change("stop", 1, "lunch"),
        change("start", 2, ""),
        change("stop", 3, "done"),
        change("edit", 4, ""),
    ]
    stopped = report.model_copy(update={"state": "stopped"})
    assert with_stop(stopped, history).stop == Stop(at_ms=3, actor="ann", reason="done")
    assert with_stop(report, history) == report
    assert with_stop(stopped, []) == stopped


def test_the_page_is_self_contained(page: str) -> None:
    ours = re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.S)
    assert len(ours) < 400_000 < len(page)  # plotly's own source is inside
    assert not re.search(r"(src|href)=", ours)


def test_what_has_no_value_yet_is_told_with_its_own_reason(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    write(home, [decision(f"{v}{n}", f"{v}{n}", v, n) for v in "ab" for n in range(12)])
    soon = render(build_report(home, CATALOGUE, experiment(), now_ms=START_MS + DAY_MS))
    told = re.search(r"Too early to say \(([^)]*)\): coverage\.", soon)
    assert told is not None
    assert "is 12, must be at least 20" in told.group(1)
    assert "coverage" not in soon[soon.index("Nothing happened so far for") :].split(".</p>")[0]
