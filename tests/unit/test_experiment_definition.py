"""What an experiment may say: times, traffic, testers, eligibility; and what it refuses, with the mend."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tastemaker.errors import ConfigError
from tastemaker.experiments.definition import Experiment, Fixed, Interleaving, RampStep, Variant
from tastemaker.experiments.eligibility import Eligibility, Subject
from tastemaker.experiments.starting import check_definition, stages_changed

HOUR_MS = 3_600_000
START = datetime(2026, 11, 26, tzinfo=UTC)
START_MS = round(START.timestamp() * 1000)
VARIANTS = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))


def experiment(**fields: Any) -> Experiment:
    defaults = {
        "name": "checkout", "hypothesis": "h", "salt": "s1", "variants": VARIANTS,
        "allocation": Fixed(weights=(0.5, 0.5)),
    }  # fmt: skip
    return Experiment(**defaults | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traffic": 0}, "traffic, is 0, must be greater than 0"),
        ({"traffic": 1.5}, "traffic"),
        ({"traffic": 0.00005}, "traffic must be a multiple of 0.0001, is 5e-05"),
        ({"traffic": 0.5, "ramp": [{"traffic": 0.2, "after_seconds": 60}]}, "must not shrink along the ramp, is 0.5, 0.2"),
        ({"ramp": [{"traffic": 1.0}]}, "needs after_seconds or at, one of them"),
        ({"ramp": [{"traffic": 1.0, "at": "2026-11-26T10:00:00"}]}, "timezone"),
        ({"starts": "2026-11-26T00:00:00Z", "ends": "2026-11-25T00:00:00Z"}, "ends must be after starts"),
        ({"testers": {"anna": "c"}}, "a tester gets variant c, must be one of a, b"),
        ({"unit": "household"}, "unit"),
        ({"variants": [{"name": "a", "alias": "version:0x"}, {"name": "b", "alias": "x"}]}, "version:7, is 'version:0x'"),
        ({"eligibility": {"devices": ["tv"], "shoe": 1}}, "unknown key eligibility.shoe"),
        ({"eligibility": {"min_age": 40, "max_age": 20}}, "nobody is meant"),
        ({"eligibility": {"attributes": {"plan": []}}}, "plan has no values"),
        ({"guardrails": [{"metric": "latency_ms", "margin": -1}]}, "guardrails.0.margin"),
        ({"allocation": {"kind": "fixed", "weights": [0.7, 0.7]}}, "add up to 1, add up to 1.4"),
        ({"allocation": {"kind": "ucb1", "floor": 0.5001}}, "floor"),
        ({"allocation": {"kind": "interleaving"}, "guardrails": [{"metric": "latency_ms"}]}, "guardrails must be empty"),
        ({"allocation": {"kind": "interleaving"}, "variants": [{"name": n, "alias": "champion"} for n in "abc"]}, "takes 2 variants, there are 3"),
        ({"allocation": {"kind": "interleaving"}, "variants": [{"name": n, "alias": "x"} for n in ("a", "interleaved")]}, "must not be named interleaved"),
    ],
)  # fmt: skip
def test_an_ill_defined_experiment_is_refused(fields: dict[str, object], message: str) -> None:
    content = experiment().model_dump(mode="json") | fields
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(content, "experiment.yaml")


def test_shares_that_do_not_add_up_are_told_without_all_the_rest() -> None:
    content = experiment().model_dump(mode="json") | {"allocation": {"kind": "fixed", "weights": [0.5, 0.6]}}
    with pytest.raises(
        ConfigError, match=r"^calm\.yaml: .* weights must add up to 1, add up to 1\.1: correct"
    ) as refused:
        Experiment.parse(content, "calm.yaml")
    assert "variants" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "happiness"}, "metric, is 'happiness', must be one of: clicks_per_request"),
        (
            {"metric": "latency_ms", "allocation": Interleaving()},
            "metric of an interleaving, is 'latency_ms', must be one of: clicks_per",
        ),
        ({"reward": "coverage"}, "reward, is 'coverage', must be one of: clicks_per_request"),
        ({"guardrails": ({"metric": "happiness"},)}, "guardrail, is 'happiness'"),
        (
            {"guardrails": ({"metric": "coverage"},)},
            "guardrail, is 'coverage', must be a metric that each unit has",
        ),
    ],
)
def test_a_metric_that_nobody_knows_is_refused_where_experiments_are_kept(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_definition(experiment(**fields))


def test_it_is_open_from_its_start_to_its_end_by_the_given_clock() -> None:
    one = experiment(starts=START, ends=START.replace(hour=2))
    moments = (-1, 0, 2 * HOUR_MS - 1, 2 * HOUR_MS)
    assert [one.is_open(START_MS + ms) for ms in moments] == [False, True, True, False]
    assert not experiment(state="stopped").is_open(START_MS)
    assert not experiment(state="draft").is_open(START_MS)


def test_traffic_follows_the_ramp_from_the_start_and_never_falls() -> None:
    steps = (
        RampStep(traffic=0.2, after_seconds=3600), RampStep(traffic=0.5, at=START.replace(hour=3)),
        RampStep(traffic=1.0, after_seconds=4 * 3600),
    )  # fmt: skip
    one = experiment(traffic=0.05, starts=START, ramp=steps)
    found = [one.traffic_at(START_MS + round(hours * HOUR_MS)) for hours in (0, 0.999, 1, 3, 4, 100)]
    assert found == [0.05, 0.05, 0.2, 0.5, 1.0, 1.0]
    assert one.peak_traffic == 1.0


@pytest.mark.parametrize(
    ("conditions", "subject", "holds"),
    [
        ({}, {}, True),
        ({"devices": ["tv", "mobile"]}, {"context": {"device": "tv"}}, True),
        ({"devices": ["tv"]}, {}, False),
        ({"countries": ["DE"]}, {"context": {"country": "de"}}, True),
        ({"countries": ["DE"]}, {"context": {"country": "fr"}}, False),
        ({"context": {"page": ["home"]}}, {"context": {"page": "home"}}, True),
        ({"users": "new"}, {"is_known": False}, True),
        ({"users": "known"}, {"is_known": False}, False),
        ({"users": "new"}, {"is_known": None}, False),
        ({"min_age": 18}, {"attributes": {"age": "18"}}, True),
        ({"min_age": 18, "max_age": 30}, {"attributes": {"age": "31"}}, False),
        ({"min_age": 18}, {}, False),
        ({"attributes": {"plan": ["pro"]}}, {"attributes": {"plan": "pro"}}, True),
        ({"attributes": {"plan": ["pro"]}, "devices": ["tv"]}, {"attributes": {"plan": "pro"}}, False),
    ],
)
def test_eligibility_needs_every_condition_and_unknown_meets_none(
    conditions: dict[str, Any], subject: dict[str, Any], holds: bool
) -> None:
    assert Eligibility.parse(conditions, "eligibility").holds(Subject("u", **subject)) is holds


def test_what_a_policy_on_context_may_see() -> None:
    seen = Subject("u", context={"device": "tv", "local_time": "2026-11-26T18:30:00+01:00"}, is_known=True)
    assert seen.features() == {"device": "tv", "hour": "18", "user": "known"}
    assert Subject("u").features() == {}


def test_the_stages_that_an_experiment_changes_are_those_of_any_variant() -> None:
    policy = {"source_weights": {"popular": 2.0}, "until": "rerank"}  # the last is what every bundle does
    one = experiment(variants=(VARIANTS[0], Variant(name="b", alias="champion", policy=policy)))
    assert stages_changed(one) == {"source_weights": "b"}
    assert stages_changed(experiment()) == {"the bundle": "b"}


def test_the_documented_example_is_one() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "experiments-setup.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    one = Experiment.parse(yaml.safe_load(example), "the page")
    check_definition(one)
    assert (one.peak_traffic, one.testers) == (1.0, {"qa-7": "calm"})
