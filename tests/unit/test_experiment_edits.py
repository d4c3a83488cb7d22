"""Edits of a running experiment: what flips a unit is refused, what is not refused flips none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.experiments.allocation import EpsilonGreedy, LinUcb
from tastemaker.experiments.assignment import assign_fixed
from tastemaker.experiments.definition import (
    Course,
    Experiment,
    Fixed,
    Guardrail,
    RampStep,
    Thompson,
    Variant,
)
from tastemaker.experiments.edits import reassigned
from tastemaker.experiments.eligibility import Eligibility, Subject
from tastemaker.experiments.layers import num_slots, resized
from tastemaker.experiments.posterior import Posterior
from tastemaker.experiments.router import draw, takes_part

NOW_MS = 1_750_000_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
UNITS = [f"u{n}" for n in range(120)]
SUBJECTS = [
    Subject(unit, f"v{unit}", f"s{unit}", {"device": ("tv", "mobile")[n % 2]}, is_known=n % 3 == 0)
    for n, unit in enumerate(UNITS)
]
VARIANTS = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))


def experiment(**fields: Any) -> Experiment:
    defaults = {
        "name": "checkout", "hypothesis": "h", "salt": "s", "variants": VARIANTS, "traffic": 0.4,
        "allocation": Fixed(weights=(0.5, 0.5)),
    }  # fmt: skip
    one = Experiment(**defaults | fields)
    ranges = resized(one.course.ranges or (), num_slots(one.peak_traffic), [])
    return one.model_copy(
        update={"course": one.course.model_copy(update={"ranges": ranges, "started_ms": 1})}
    )


def got(one: Experiment, subject: Subject, now_ms: int = NOW_MS) -> tuple[Any, ...] | None:
    """What a request gets: variant, bundle and policy; None of one that takes no part. A bandit's first draw of the epoch."""
    unit = takes_part(one, subject, now_ms) if one.is_open(now_ms) else None
    if unit is None:
        return None
    fixed = isinstance(one.allocation, Fixed)
    found = assign_fixed(one, unit) if fixed else draw(one, Posterior(), unit, now_ms)
    return found.unit, found.variant, found.alias, found.policy


CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "layer": st.sampled_from(["default", "search"]),
    "salt": st.sampled_from(["s", "t"]),
    "unit": st.sampled_from(["user", "visitor"]),
    "origin": st.sampled_from(["live", "simulator"]),
    "eligibility": st.sampled_from([None, Eligibility(devices=("tv",)), Eligibility(users="new")]),
    "variants": st.sampled_from([
        VARIANTS, VARIANTS[::-1], (VARIANTS[0], Variant(name="b", alias="other")),
        (VARIANTS[0], Variant(name="b", alias="challenger", policy={"until": "rank"})),
    ]),
    "allocation": st.sampled_from([
        Fixed(weights=(0.5, 0.5)), Fixed(weights=(0.9, 0.1)), Fixed(weights=(0.5, 0.5 + 1e-15)), Thompson(), EpsilonGreedy(),
    ]),
    "traffic": st.sampled_from([0.1, 0.4, 0.4001, 1.0]),
    "ramp": st.sampled_from([(), (RampStep(traffic=1.0, after_seconds=0),), (RampStep(traffic=1.0, at=NOW + timedelta(1)),)]),
    "starts": st.sampled_from([None, NOW - timedelta(1), NOW + timedelta(1)]),
    "ends": st.sampled_from([None, NOW + timedelta(2)]),
    "metric": st.sampled_from(["clicks_per_request", "revenue"]),
    "guardrails": st.sampled_from([(), (Guardrail(metric="latency_ms"),)]),
    "hypothesis": st.sampled_from(["h", "i"]),
    "testers": st.sampled_from([{}, {"u1": "b"}]),
}  # fmt: skip
FIELDS = st.fixed_dictionaries({}, optional=CHANGES)


@given(FIELDS, FIELDS)
def test_an_edit_that_nobody_has_to_ask_for_flips_no_unit(
    before: dict[str, Any], change: dict[str, Any]
) -> None:
    old = experiment(**before)
    new = experiment(**before | change | {"course": old.course})
    if reassigned(old, new, NOW_MS):
        return
    for subject in SUBJECTS:
        has = got(old, subject)
        assert has is None or got(new, subject) == has, f"{subject} of {change}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"salt": "t"}, "salt decides who takes part"),
        ({"unit": "session"}, "unit decides who takes part"),
        ({"eligibility": Eligibility(devices=("tv",))}, "eligibility decides who takes part"),
        ({"traffic": 0.1}, "traffic falls from 0.4 to 0.1: units would leave"),
        ({"variants": VARIANTS[::-1]}, "variants become b, a, were a, b"),
        ({"variants": (VARIANTS[0], Variant(name="b", alias="x"))}, "variant b would be something else"),
        (
            {"allocation": Fixed(weights=(0.9, 0.1))},
            "weights become 0.9 0.1, were 0.5 0.5: units would change variant",
        ),
        ({"allocation": Thompson()}, "allocation becomes thompson, was fixed"),
        ({"starts": NOW + timedelta(1)}, "starts decides who takes part"),
    ],
)
def test_what_flips_units_is_named(change: dict[str, Any], reason: str) -> None:
    assert reassigned(experiment(), experiment(**change), NOW_MS) == (reason,)
    assert (
        reassigned(
            experiment(state="draft", course=Course()).model_copy(update={"course": Course()}),
            experiment(**change),
            NOW_MS,
        )
        == ()
    )


def test_a_bandits_unit_keeps_its_draw_whatever_the_floor_but_not_another_epoch() -> None:
    old = experiment(allocation=Thompson(floor=0.1))
    assert reassigned(old, experiment(allocation=Thompson(floor=0.2)), NOW_MS) == ()
    (reason,) = reassigned(old, experiment(allocation=Thompson(floor=0.1, epoch_seconds=60)), NOW_MS)
    assert "epoch_seconds" in reason


def test_more_traffic_lets_units_in_and_flips_none() -> None:
    few, many = experiment(traffic=0.1), experiment(traffic=1.0)
    assert reassigned(few, many, NOW_MS) == ()
    before, after = ([got(one, subject) for subject in SUBJECTS] for one in (few, many))
    assert all(b in (None, a) for b, a in zip(before, after, strict=True))
    assert 0 < sum(b is not None for b in before) < sum(a is not None for a in after) == len(UNITS)


def test_another_encoding_of_context_has_to_be_asked_for() -> None:
    old, new = (experiment(allocation=LinUcb(encoding=encoding)) for encoding in (1, 2))
    assert reassigned(old, old, NOW_MS) == ()
    assert reassigned(old, new, NOW_MS) == (
        "encoding becomes 2, was 1: nothing that was learned would count",
    )
