"""Which decision earns which event: every case by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import CATALOGUE, START_MS, WINDOW_MS, decision, event, experiment, raw, write

from tastemaker.errors import ExperimentError
from tastemaker.events.log import Entry
from tastemaker.experiments.definition import Course
from tastemaker.experiments.metrics import PURCHASE_WINDOW_MS
from tastemaker.experiments.reporting.earned import Tally
from tastemaker.experiments.reporting.measures import count
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.home import Home

LATER_MS = START_MS + 100 * WINDOW_MS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def read(home: Home, now_ms: int = LATER_MS, **fields: Any) -> Observations:
    return read_observations(home, CATALOGUE, experiment(**fields), now_ms)


def clicks(home: Home, now_ms: int = LATER_MS) -> list[float]:
    return count(read(home, now_ms), ("click",)).tolist()


@pytest.mark.parametrize(
    ("what", "events", "expected"),
    [
        ("in its window", [event("r1", "x", 5)], [1, 0]),
        ("twice the same item", [event("r1", "x", 5), event("r1", "x", 6)], [1, 0]),
        ("the same event twice", [event("r1", "x", 5, event_id="e"), event("r1", "x", 7, event_id="e")], [1, 0]),
        ("two items", [event("r1", "x", 5), event("r1", "y", 6)], [2, 0]),
        ("the last ms of the window", [event("r1", "x", WINDOW_MS)], [1, 0]),
        ("a ms too late", [event("r1", "x", WINDOW_MS + 1)], [0, 0]),
        ("overtook its answer", [event("r2", "x", 99)], [0, 1]),
        ("an item that was not shown", [event("r1", "z", 5)], [0, 0]),
        ("an unknown request", [event("r9", "x", 5)], [0, 0]),
        ("an unknown request of a user who was shown it", [event("r9", "x", 105, user_id="u1")], [0, 0]),
        ("another origin", [event("r1", "x", 5, origin="live")], [0, 0]),
        ("another kind", [event("r1", "x", 5, kind="like")], [0, 0]),
        ("no request: the last answer", [event(None, "x", 105, user_id="u1")], [0, 1]),
        ("no request: the answer before", [event(None, "x", 50, user_id="u1")], [1, 0]),
        ("no request: before any answer", [event(None, "x", -1, user_id="u1")], [0, 0]),
        ("no request: another user", [event(None, "x", 105, user_id="u2")], [0, 0]),
        ("no request: an item that was not shown", [event(None, "z", 105, user_id="u1")], [0, 0]),
        ("no request: too late", [event(None, "x", 101 + WINDOW_MS, user_id="u1")], [0, 0]),
        ("late to the log, in time by its client", [event("r1", "x", 5 * WINDOW_MS, own_ms=5)], [1, 0]),
        ("a client's clock that is behind", [event("r1", "x", 5, own_ms=-9 * WINDOW_MS)], [1, 0]),
        ("behind, and too late", [event("r1", "x", 2 * WINDOW_MS, own_ms=-5)], [0, 0]),
        ("a client's clock that is ahead", [event("r1", "x", 5, own_ms=9 * WINDOW_MS)], [1, 0]),
    ],
)  # fmt: skip
def test_an_event_belongs_to_one_decision_or_none(
    home: Home, what: str, events: list[Entry], expected: list[float]
) -> None:
    write(home, [decision("r1", "u1", "a", 0), decision("r2", "u1", "a", 100)], events)
    assert clicks(home) == expected, what


def test_a_long_window_does_not_take_an_event_from_its_own_answer(home: Home) -> None:
    write(
        home,
        [decision("r1", "u1", "a", 0), decision("r2", "u1", "a", 100)],
        [event("r1", "x", 200, kind="purchase", value=5.0), event(None, "x", 300, kind="purchase", user_id="u1", value=7.0)],
    )  # fmt: skip
    bought = Tally("value", ("purchase",), PURCHASE_WINDOW_MS)
    assert read(home).earned(bought).tolist() == [5.0, 7.0]


def test_what_came_after_a_report_is_in_the_next(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 0), decision("r2", "u2", "b", 1)], [event("r2", "x", 9)])
    assert clicks(home) == [0, 1]
    write(home, [], [event("r1", "x", 3 * WINDOW_MS, own_ms=4)])  # its client was out of reach
    assert clicks(home) == [1, 1]


def test_unknown_requests_and_items_that_were_not_shown_are_counted(home: Home) -> None:
    write(
        home,
        [decision("r1", "u1", "a", 0)],
        [event("r9", "x", 5, user_id="u1"), event("r1", "z", 5), event("r1", "x", 6), event("r8", "x", 5)],
    )
    assert read(home).unknown_events == 2  # r8's user took no part, so that it is not looked at


def test_silence_is_an_answer_only_when_the_window_has_closed(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 0), decision("r2", "u2", "b", 50)])
    seen = read(home, START_MS + WINDOW_MS + 10)
    assert (len(seen), seen.num_open) == (1, 1)


def test_decisions_of_any_layer_are_read_from_the_assignments(home: Home) -> None:
    other = {
        "layer": "home",
        "experiment": "exp",
        "variant": "b",
        "unit": "visitor-1",
        "epoch": 2,
        "propensity": 0.3,
        "propensities": [0.7, 0.3],
    }
    first = {
        "layer": "default",
        "experiment": "else",
        "variant": "q",
        "epoch": 0,
        "propensity": 1.0,
        "propensities": [1.0],
    }
    entry = decision(
        "r1",
        "u1",
        "q",
        0,
        experiment="else",
        propensities=(1.0,),
        assignments=[json.dumps(first), json.dumps(other)],
    )
    plain = decision("r2", "u2", "a", 1)
    write(
        home, [entry, plain, decision("r3", "u3", "q", 2, experiment="else", assignments=[json.dumps(first)])]
    )
    seen = read(home)
    assert seen.variant_R.tolist() == [1, 0]
    assert seen.propensity_RV.tolist() == [[0.7, 0.3], [0.5, 0.5]]
    assert seen.epoch_R.tolist() == [2, 0]
    assert seen.own_propensities().tolist() == [0.3, 0.5]
    assert seen.units.take(seen.unit_R).to_pylist() == ["visitor-1", "u2"]


def test_what_is_no_part_of_the_experiment_is_left_out(home: Home) -> None:
    write(
        home,
        [
            decision("r1", "u1", "a", 1000),
            decision("r2", "u2", "b", 1001, shadow_of="r1"),
            decision("r3", "tester", None, 1002, experiment=None, forced_variants=["exp=b"]),
            decision("r4", "u4", "b", 1003, origin="replay"),
            decision("r5", "u5", "b", 5),  # before units were assigned anew
            decision("r6", "u6", None, 1004, experiment=None),
        ],
    )
    course = Course(reassigned_ms=START_MS + 500)
    assert len(read(home, course=course)) == 1


def test_days_of_the_release_before_are_read(home: Home) -> None:
    import pyarrow.parquet as pq

    write(home, [decision("r1", "u1", "a", 0)], [event("r1", "x", 5)])
    (path,) = (home / "decisions" / CATALOGUE).glob("day=*/*.parquet")
    table = pq.read_table(path)
    later = [name for name in ("assignments", "shadow_of", "first_position") if name in table.column_names]
    pq.write_table(table.drop_columns(later), path)
    assert clicks(home) == [1]


def test_a_decision_without_its_propensities_is_refused(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 0, propensities=())])
    with pytest.raises(ExperimentError, match="lacks its propensities"):
        read(home)


def test_a_draw_that_could_not_be_is_refused(home: Home) -> None:
    write(home, [decision("r1", "u1", "a", 0, propensities=(0.0, 1.0))])
    with pytest.raises(ExperimentError, match="must be above 0"):
        read(home)


def test_joining_equals_a_plain_search(home: Home) -> None:
    luck = np.random.default_rng(7)
    shown = [
        (f"r{n}", f"u{luck.integers(5)}", int(luck.integers(40_000)), [f"i{i}" for i in luck.choice(8, 3, replace=False)])
        for n in range(60)
    ]  # fmt: skip
    came = [
        (f"r{luck.integers(70)}" if luck.random() < 0.5 else None, f"u{luck.integers(6)}", f"i{luck.integers(9)}", int(luck.integers(60_000)))
        for _ in range(300)
    ]  # fmt: skip
    write(
        home,
        [decision(r, u, "a", t, item_ids=items) for r, u, t, items in shown],
        [event(r, i, t, user_id=u, event_id=str(n)) for n, (r, u, i, t) in enumerate(came)],
    )
    in_order = sorted(shown, key=lambda one: (one[2], f"d-{one[0]}"))
    expected: set[tuple[int, str]] = set()
    for request, user, item, at in came:
        fitting = [
            n for n, (r, u, t, items) in enumerate(in_order)
            if item in items and (r == request if request else u == user and t <= at)
        ]  # fmt: skip
        first = START_MS + min(t for _, _, t, _ in shown)
        if fitting and at - in_order[fitting[-1]][2] <= WINDOW_MS and START_MS + at >= first:
            expected.add((fitting[-1], item))
    clicked = read(home).clicks
    names = read(home).lists.items.to_pylist()
    assert {
        (r, names[i]) for r, i in zip(clicked.row_E.tolist(), clicked.item_E.tolist(), strict=True)
    } == expected


def test_a_record_with_more_fields_than_we_know_is_read(home: Home) -> None:
    write(home, [raw(decision("r1", "u1", "a", 0), of_a_later_release=1)], [event("r1", "x", 5)])
    assert clicks(home) == [1]
