"""Every metric of a small experiment, worked out by hand."""

from pathlib import Path
from typing import Any

import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, event, experiment, write

from tastemaker.errors import ConfigError
from tastemaker.experiments.definition import Thompson
from tastemaker.experiments.metrics import METRICS, metric_of
from tastemaker.experiments.reporting.comparisons import compare
from tastemaker.experiments.reporting.measures import measure
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.experiments.reporting.segments import by_segment
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.home import Home
from tastemaker.types import EVENT_KINDS

LONG_AFTER_MS = START_MS + 30 * DAY_MS
MINUTE_MS = 60_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def read(home: Home, now_ms: int = LONG_AFTER_MS, **fields: Any) -> Observations:
    return read_observations(home, CATALOGUE, experiment(**fields), now_ms)


def sums(seen: Observations, name: str) -> list[tuple[float, float]]:
    """Numerator and denominator of variants a and b."""
    found = measure(seen, metric_of(name))
    variant = seen.variant_R[found.row_K]
    return [
        (float(found.numerator_K[variant == v].sum()), float(found.denominator_K[variant == v].sum())) for v in (0, 1)
    ]  # fmt: skip


def four(home: Home, *events: Any) -> Observations:
    """u1 and u2 see a (u1 twice), u3 and u4 see b."""
    decisions = [
        decision("r1", "u1", "a", 0), decision("r2", "u1", "a", 5000), decision("r3", "u2", "a", 100),
        decision("r4", "u3", "b", 200), decision("r5", "u4", "b", 300),
    ]  # fmt: skip
    write(home, decisions, events)
    return read(home)


def test_every_metric_says_what_it_needs() -> None:
    for name, metric in METRICS.items():
        assert (metric.name, set(metric.events) <= set(EVENT_KINDS)) == (name, True)
        assert bool(metric.events) == (
            metric.measure in ("any", "items", "value", "mean value", "tail items")
        ), name
    with pytest.raises(ConfigError, match="one of: clicks_per_request"):
        metric_of("happiness")


def test_the_docs_tell_every_metric_and_which_way_is_better() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments-report.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[-2].strip() for row in rows}
    assert told == {name: metric.better for name, metric in METRICS.items()}


def test_clicks_impressions_and_refusals(home: Home) -> None:
    seen = four(
        home,
        event("r1", "x", 5), event("r1", "y", 6), event("r4", "x", 250),
        *(event(r, i, 7000, kind="impression") for r in ("r1", "r4") for i in "xy"),
        event("r4", "x", 260, kind="skip"), event("r4", "x", 261, kind="hide"), event("r3", "y", 900, kind="dislike"),
    )  # fmt: skip
    assert sums(seen, "clicks_per_request") == [(2, 3), (1, 2)]
    assert sums(seen, "rewarded_requests") == [(1, 3), (1, 2)]
    assert sums(seen, "clicks_per_impression") == [(2, 2), (1, 2)]
    assert sums(seen, "refusals_per_request") == [(1, 3), (1, 2)]


def test_purchases_of_seven_days_by_unit(home: Home) -> None:
    seen = four(
        home,
        event("r1", "x", DAY_MS, kind="purchase", value=10.0),
        event("r2", "x", 6 * DAY_MS, kind="purchase", value=20.0),
        event(
            None, "y", 7 * DAY_MS + 299, kind="purchase", value=5.0, user_id="u4"
        ),  # a ms within the window
        event(None, "y", 7 * DAY_MS + 201, kind="purchase", value=9.0, user_id="u3"),  # a ms behind it
    )
    assert sums(seen, "conversion") == [(1, 2), (1, 2)]  # u1 twice is one unit
    assert sums(seen, "revenue") == [(30, 2), (5, 2)]


def test_units_whose_window_is_open_are_left_out_of_that_metric_alone(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 0), decision("r2", "u2", "b", DAY_MS)], [])
    seen = read(home, START_MS + 7 * DAY_MS + 5)
    assert sums(seen, "conversion") == [(0, 1), (0, 0)]
    assert sums(seen, "clicks_per_request") == [(0, 1), (0, 1)]


def test_watch_time_and_ratings(home: Home) -> None:
    seen = four(
        home,
        event("r1", "x", 100, kind="watch", value=30.0), event("r1", "x", 200, kind="watch", value=12.0),
        event("r4", "x", 300, kind="watch", value=60.0),
        event("r1", "x", 100, kind="rating", value=2.0), event("r1", "x", 500, kind="rating", value=5.0),  # thought again
        event("r1", "y", 100, kind="rating", value=4.0), event("r5", "y", 900, kind="rating", value=-1.0),
    )  # fmt: skip
    assert sums(seen, "watch_time") == [(42, 2), (60, 2)]
    assert sums(seen, "satisfaction") == [(9, 2), (-1, 1)]


def test_visits_end_by_half_an_hour_of_silence(home: Home) -> None:
    decisions = [
        decision("r1", "u1", "a", 0), decision("r2", "u1", "a", 20 * MINUTE_MS), decision("r3", "u1", "a", 90 * MINUTE_MS),
        decision("r4", "u2", "b", 0),
    ]  # fmt: skip
    events = [
        event(
            "r2", "x", 45 * MINUTE_MS, user_id="u1", kind="watch", value=5.0
        ),  # 25 minutes after the last sign
        event(None, "q", 50 * MINUTE_MS, user_id="u1"),  # any item is a sign of life
        event("r4", "x", 31 * MINUTE_MS, user_id="u2"),  # a visit without any answer of its own
    ]
    write(home, decisions, events)
    seen = read(home)
    assert sums(seen, "session_length") == [(50 * 60 + 0, 2), (0, 1)]
    assert sums(read(home, START_MS + 100 * MINUTE_MS), "session_length") == [
        (50 * 60, 1),
        (0, 1),
    ]  # r3's goes on


def test_who_came_back_between_a_day_and_seven(home: Home) -> None:
    decisions = [decision(f"r{n}", f"u{n}", "ab"[n // 3], n) for n in range(6)]
    events = [
        event(None, "x", DAY_MS, user_id="u0"), event(None, "x", DAY_MS, user_id="u1"),  # u1: a ms too soon
        event(None, "x", 7 * DAY_MS + 2, user_id="u2"), event(None, "x", 7 * DAY_MS + 4, user_id="u3"),
    ]  # fmt: skip
    write(home, [*decisions, decision("again", "u4", "b", 3 * DAY_MS)], events)
    # u3 came a ms too late; u4 asked again; u0 exactly after a day, u2 exactly after seven.
    assert sums(read(home), "return_rate") == [(2, 3), (1, 3)]


def test_unexpected_clicks_are_those_outside_of_what_half_of_all_took_up(home: Home) -> None:
    before = [event(None, "x", -DAY_MS - n, user_id=f"u{n % 4 + 1}") for n in range(6)]
    before += [event(None, "y", -DAY_MS - 9 - n, user_id="u1", kind="view") for n in range(3)]
    seen = four(home, *before, event("r1", "x", 5), event("r1", "y", 6), event("r4", "y", 250))
    assert seen.past.interactions_I.tolist() == [6, 3]  # x alone holds half of the nine
    assert sums(seen, "serendipity") == [(1, 3), (1, 2)]


def test_fallbacks_and_times(home: Home) -> None:
    write(
        home,
        [
            decision("r1", "u1", "a", 0, rungs=["popular"], timings_ms={"total": 40.0}),
            decision("r2", "u2", "a", 1, timings_ms={"total": 20.0}),
            decision("r3", "u3", "b", 2, timings_ms={"rank": 3.0}),  # an old record without the sum
        ],
    )
    assert sums(read(home), "degraded_requests") == [(1, 2), (0, 1)]
    assert sums(read(home), "latency_ms") == [(60, 2), (0, 0)]


def test_a_bandits_draw_is_the_unit_of_unit_means(home: Home) -> None:
    bandit = experiment(allocation=Thompson(floor=0.1))
    write(
        home,
        [
            decision("r1", "u1", "a", 0, epoch=1), decision("r2", "u1", "a", 5, epoch=1),
            decision("r3", "u1", "b", 9, epoch=2, propensities=(0.2, 0.8)), decision("r4", "u2", "b", 8, epoch=1),
        ],
        [event("r2", "x", 50, kind="purchase", value=3.0), event("r3", "x", 50, kind="purchase", value=4.0)],
    )  # fmt: skip
    seen = read_observations(home, CATALOGUE, bandit, LONG_AFTER_MS)
    assert sums(seen, "conversion") == [(1, 1), (1, 2)]
    report = compare(seen, metric_of("revenue"), Weighing(bandit, 0.95, 1))
    # b: u1's draw weighs 1/.8 and earned 4, u2's weighs 1/.5 and earned nothing.
    assert report.values[1].value == pytest.approx(4 * 1.25 / (1.25 + 2), abs=1e-12)
    assert report.values[0].value is None  # one unit alone


def test_segments_are_of_a_units_first_answer(home: Home) -> None:
    before = [event(None, "q", -DAY_MS - n, user_id="u2") for n in range(12)]
    before += [event(None, "q", -90 * DAY_MS - n, user_id="u3", kind="view") for n in range(60)]
    write(
        home,
        [
            decision("r1", "u1", "a", 0, context={"device": "tv", "country": "de"}),
            decision("r2", "u1", "a", 9, context={"device": "mobile"}),
            decision("r3", "u2", "b", 1, context={"device": "Mobile"}), decision("r4", "u3", "b", 2),
        ],
        [*before, *(event(None, "q", -n - 1, user_id="u3", kind="impression") for n in range(9))],
    )  # fmt: skip
    seen = read(home)
    assert seen.past.interactions_U.tolist() == [0, 12, 60]
    assert seen.past.per_unit(("click", "view"), values=False).tolist() == [0, 12, 0]  # of the last 14 days
    primary = metric_of("clicks_per_request")
    every = by_segment(seen, primary, [metric_of("conversion")], Weighing(experiment(), 0.95, 1))
    found = [one for one in every if one.metric == primary.name]
    assert [(one.kind, one.name) for one in every if one.metric == "conversion"] == [
        ("interactions before", "0"), ("interactions before", "10-50"), ("interactions before", "50+"),
    ]  # fmt: skip
    assert {(one.kind, one.name, one.units, one.decisions) for one in found} == {
        ("device", "tv", 1, 2), ("device", "mobile", 1, 1), ("device", "unknown", 1, 1),
        ("country", "DE", 1, 2), ("country", "unknown", 2, 2),
        ("interactions before", "0", 1, 2), ("interactions before", "10-50", 1, 1), ("interactions before", "50+", 1, 1),
    }  # fmt: skip
    assert sum(one.decisions for one in found if one.kind == "device") == len(seen)
