"""Alerts: each fires where it should, is silent just short of that, and has a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/tastemaker/rules"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
LONG = "x400"
"""Of samples every 30 seconds: longer than any test looks."""


class Case(NamedTuple):
    """Series under which an alert fires, and some under which it does not, by `at`; rules are evaluated every `looks`."""

    firing: dict[str, str]
    quiet: dict[str, str]
    at: str = "30m"
    interval: str = "30s"
    looks: str = "30s"


def requests(**rates: int) -> dict[str, str]:
    """Requests of each outcome in 30 seconds."""
    name = 'tastemaker_gateway_requests_total{catalogue="c",route="recommendations",outcome="%s"}'
    return {name % outcome: f"0+{rate}{LONG}" for outcome, rate in rates.items()}


def in_time(number: int, of: int = 1000, empty: int = 0) -> dict[str, str]:
    """Of so many recommendations in 30 seconds, how many were in time and how many empty."""
    name = 'tastemaker_stage_latency_seconds_%s{catalogue="c",stage="total"%s}'
    found = {
        name % ("bucket", ',le="0.1"'): f"0+{number}{LONG}",
        name % ("count", ""): f"0+{of}{LONG}",
        'tastemaker_gateway_empty_total{catalogue="c"}': f"0+{empty}{LONG}",
    }
    return found if empty else dict(list(found.items())[:2])


def gauge(name: str, value: float, labels: str = "") -> dict[str, str]:
    """A value that stays."""
    return {f'tastemaker_{name}{{catalogue="c"{labels}}}': f"{value}+0{LONG}"}


def counter(name: str, labels: str = "") -> Case:
    """Fires when the counter appears with a value; not while an old value stays."""
    series = f'tastemaker_{name}_total{{catalogue="c"{labels}}}'
    return Case({series: "_x40 1+0x100"}, {series: f"5+0{LONG}"}, at="25m")


SERVED = {'tastemaker_experiment_served_total{catalogue="c",experiment="e",variant="a"}': f"0+10{LONG}"}
CASES: dict[str, Case] = {
    "TastemakerErrorsFastBurn": Case(requests(ok=980, error=20), requests(ok=990, refused=10)),
    "TastemakerErrorsSlowBurn": Case(requests(ok=990, refused=10), requests(ok=995, error=5, invalid=100)),
    "TastemakerErrorsCreepingBurn": Case(
        requests(ok=998, error=2), requests(ok=1999, error=1), at="90m"
    ),
    "TastemakerLatencyFastBurn": Case(in_time(800), in_time(900)),
    "TastemakerLatencySlowBurn": Case(in_time(900), in_time(950)),
    "TastemakerLatencyCreepingBurn": Case(in_time(980), in_time(995), at="90m"),
    "TastemakerDown": Case(requests(ok=1), gauge("bundle_live_generation", 3)),
    "TastemakerDegraded": Case(requests(ok=80, degraded=20), requests(ok=95, degraded=5)),
    "TastemakerBreakerOpen": Case(
        gauge("gateway_breaker_state", 2, ',part="ranker"'), gauge("gateway_breaker_state", 1, ',part="ranker"')
    ),
    "TastemakerForced": Case(
        gauge("gateway_forced", 1, ',rung="popular"'),
        {'tastemaker_gateway_forced{catalogue="c",rung="popular"}': "1+0x60 0+0x100"},
        at="70m",
    ),
    "TastemakerEmptyAnswers": Case(in_time(1000, empty=20), in_time(1000, empty=5)),
    "TastemakerStreamLag": Case(
        gauge("events_oldest_unapplied_seconds", 90), gauge("events_oldest_unapplied_seconds", 30)
    ),
    "TastemakerNoConsumer": Case(gauge("events_held_partitions", 0), gauge("events_held_partitions", 1)),
    "TastemakerSpooling": Case(gauge("spool_held_bytes", 1000), gauge("spool_held_bytes", 0)),
    "TastemakerDeadLetters": counter("events_dead_letters", ',stream="events"'),
    "TastemakerStaleFeatures": Case(
        gauge("features_items_age_seconds", 900) | gauge("features_trending_age_seconds", 1),
        gauge("features_items_age_seconds", 500) | gauge("features_trending_age_seconds", 500),
    ),
    "TastemakerFeatureSkew": Case(
        gauge("features_skew_ratio", 0.2, ',feature="clicks"') | gauge("features_skew_rows", 500),
        gauge("features_skew_ratio", 0.2, ',feature="clicks"') | gauge("features_skew_rows", 10),
    ),
    "TastemakerStaleBundle": Case(
        {'tastemaker_bundle_created_timestamp_seconds{catalogue="c",alias="champion"}': "60+0x6000"},
        {'tastemaker_bundle_created_timestamp_seconds{catalogue="c",alias="champion"}': "864000+0x6000"},
        at="15d",
        interval="4m",
        looks="1h",
    ),
    "TastemakerBundleRefused": counter("bundle_refused", ',reason="corrupt"'),
    "TastemakerSplitMismatch": Case(
        gauge("experiment_srm_ratio", 0.0001, ',experiment="e"') | SERVED,
        gauge("experiment_srm_ratio", 0.002, ',experiment="e"')
        | SERVED
        | gauge("experiment_srm_ratio", 0.0001, ',experiment="stopped"'),
    ),
    "TastemakerGuardrailStop": counter("experiment_guardrail_stops", ',experiment="e"'),
    "TastemakerDecisionsDropped": counter("gateway_decisions", ',outcome="dropped"'),
    "TastemakerStateMemory": Case(
        gauge("state_used_bytes", 90, ',store="state",kind="used"')
        | gauge("state_used_bytes", 100, ',store="state",kind="limit"'),
        gauge("state_used_bytes", 90, ',store="state",kind="used"')
        | gauge("state_used_bytes", 0, ',store="state",kind="limit"'),
    ),
}  # fmt: skip
LABELS = {
    "TastemakerStaleFeatures": {"catalogue": "c"},
    "TastemakerDeadLetters": {"catalogue": "c", "stream": "events"},
    "TastemakerSplitMismatch": {"catalogue": "c", "experiment": "e"},
}
"""What whoever is called at night has to be told, of some."""


def promtool(*arguments: str | Path) -> str:
    """What it says; fails where it finds fault."""
    assert shutil.which("promtool"), "install the package `prometheus`"
    done = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def looked_at(alert: str, case: Case, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """A test of promtool's: whether the alert fires at the time."""
    expr = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    test: dict[str, Any] = {
        "name": f"{alert} {'fires' if fires else 'is silent'}",
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": case.at, "exp_samples": samples}],
    }
    if fires and alert in LABELS:
        labels = ",".join(f'{key}="{value}"' for key, value in LABELS[alert].items())
        named = f'count(ALERTS{{alertname="{alert}",alertstate="firing",{labels}}})'
        test["promql_expr_test"].append({"expr": named, "eval_time": case.at, "exp_samples": samples})
    return test


def test_every_alert_has_a_case_a_severity_and_a_runbook() -> None:
    assert set(CASES) == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['labels']['runbook']}.md", name
        text = (ROOT / rule["annotations"]["runbook"]).read_text()
        assert f"`{name}`" in text, f"{rule['annotations']['runbook']} does not name {name}"


def test_every_runbook_belongs_to_an_alert() -> None:
    named = {Path(rule["annotations"]["runbook"]).name for rule in ALERTS.values()}
    there = {path.name for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README.md"}
    assert there == named


def test_runbooks_name_metrics_and_commands_that_exist() -> None:
    telemetry = (ROOT / "platform/tastemaker/telemetry.py").read_text()
    for path in (ROOT / "docs/runbooks").glob("*.md"):
        for metric in re.findall(r"`(tastemaker_\w+)", path.read_text()):
            base = re.sub(r"_(total|bucket|sum|count)$", "", metric)
            assert f'"{base}"' in telemetry, f"{path.name}: {metric}"


def test_runbooks_name_commands_that_exist() -> None:
    import typer

    from tastemaker import cli

    cli._load_plugins()
    program: Any = typer.main.get_command(cli.app)
    named = {
        words
        for path in (ROOT / "docs/runbooks").glob("*.md")
        for words in re.findall(r"`tastemaker ([a-z -]+)", path.read_text())
    }
    assert len(named) > 10
    for words in named:
        command = program
        for word in words.split():
            if not hasattr(command, "commands"):
                break  # an argument
            assert word in command.commands, f"tastemaker {words}"
            command = command.commands[word]


@pytest.mark.chart
def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


@pytest.mark.chart
@pytest.mark.parametrize("alert", ALERTS)
def test_fires_where_it_should_and_nowhere_else(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    tests = [looked_at(alert, case, case.firing, True), looked_at(alert, case, case.quiet, False)]
    file = tmp_path / "test.yaml"
    rules = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": case.looks, "tests": tests}))
    promtool("test", "rules", file)
