"""An interleaving's report: credit by hand, simulated clicks whose preference is known, and what it says in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, WINDOW_MS, decision, event, experiment, write

from tastemaker.errors import ConfigError, ExperimentError
from tastemaker.events.log import Entry
from tastemaker.experiments.definition import Experiment, Interleaving
from tastemaker.experiments.interleaving import NOBODYS, team_draft
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting import parts
from tastemaker.experiments.reporting.duels import read_duels
from tastemaker.experiments.reporting.figures import preference_over_time
from tastemaker.experiments.reporting.interleaved import InterleavingReport, build_interleaving_report
from tastemaker.experiments.reporting.interleaved_page import render_interleaving
from tastemaker.home import Home

LATER_MS = START_MS + 40 * DAY_MS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def duel(**fields: Any) -> Experiment:
    return experiment(allocation=Interleaving(), **fields)


def drafted(request_id: str, unit: str, items: str, teams: list[int], at_ms: int = 0, **fields: Any) -> Entry:
    """A list of items a, b, … with each one's team."""
    return decision(
        request_id, unit, "interleaved", at_ms, item_ids=[*items], slot_team=teams, propensities=(1.0,), propensity=1.0, **fields
    )  # fmt: skip


def test_credit_and_preference_by_hand(home: Home) -> None:
    lists = [
        drafted("r1", "u1", "abcd", [0, 1, 1, 0]),
        drafted("r2", "u1", "abc", [1, 0, NOBODYS]),
        drafted("r3", "u2", "ab", [0, 1]),
        drafted("r4", "u3", "ab", [1, 0]),
        drafted("open", "u4", "ab", [1, 0], at_ms=45 * DAY_MS),
    ]
    events = [
        event("r1", "b", 10), event("r1", "c", 20), event("r1", "a", 30), event("r1", "b", 40),  # b counts once: 2 to 1 for team 1
        event("r2", "c", 10), event("r2", "b", 10 + WINDOW_MS),  # nobody's, and too late: a tie
        event("r3", "a", 10),  # team 0
        event("r4", "a", 10), event("r4", "a", 11, kind="impression"),  # team 1
        event("r9", "a", 10, user_id="u2"),  # a list of no interleaving
    ]  # fmt: skip
    write(home, lists, events)
    duels = read_duels(home, CATALOGUE, duel(), METRICS["clicks_per_request"], LATER_MS)
    assert duels.earned_RT.tolist() == [[1, 2], [0, 0], [1, 0], [0, 1]]
    assert duels.picks_RT.tolist() == [[2, 2], [1, 1], [1, 1], [1, 1]]
    report = build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)
    assert (report.units, report.requests, report.open_requests, report.unknown_events) == (3, 4, 1, 1)
    assert [(team.name, team.wins, team.earned, team.picks) for team in report.teams] == [
        ("a", 1, 2.0, 5),
        ("b", 2, 3.0, 5),
    ]
    assert report.ties == 1
    # Scores u1: 1 + 0 over 2 lists, u2 -1, u3 1: preference 1/4; residuals score - lists/4: .5, -1.25, .75
    assert report.preference.value == 1 / 4
    error = (3 / 2 * (0.5**2 + 1.25**2 + 0.75**2) / 4**2) ** 0.5
    assert report.preference.low == pytest.approx(1 / 4 - 1.959964 * error, abs=1e-6)
    assert report.advice.verdict == "keep running"


def test_a_purchase_wins_by_its_value(home: Home) -> None:
    lists = [drafted("r1", "u1", "ab", [0, 1]), drafted("r2", "u2", "ab", [1, 0])]
    events = [
        event("r1", "a", 10, kind="purchase", value=5.0), event("r1", "b", 10, kind="purchase", value=3.0),
        event("r1", "b", 20, kind="purchase", value=4.0), event("r2", "b", 6 * DAY_MS, kind="purchase", value=9.0),
    ]  # fmt: skip
    write(home, lists, events)
    duels = read_duels(home, CATALOGUE, duel(), METRICS["revenue"], LATER_MS)
    assert duels.earned_RT.tolist() == [[5, 7], [9, 0]]
    assert duels.scores().tolist() == [1, -1]


def test_a_metric_of_whole_lists_wins_none(home: Home) -> None:
    with pytest.raises(
        ConfigError,
        match="metric of an interleaving, is 'latency_ms', must be one of: clicks_per_request",
    ):
        build_interleaving_report(home, CATALOGUE, duel(), "latency_ms")


def test_a_record_without_teams_is_refused(home: Home) -> None:
    write(home, [drafted("r1", "u1", "ab", [0]), drafted("r2", "u2", "ab", [0, 1])])
    with pytest.raises(ExperimentError, match="does not say whose picks it holds: log slot_team"):
        build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)


def simulated(home: Home, num_units: int, better: float, seed: int = 0) -> float:
    """Lists of units who come three times; team 1's items are clicked with 5% more or less than team 0's. Gives the true preference."""
    generator = np.random.default_rng(seed)
    lists, events = [], []
    for n in range(num_units):
        taste = generator.uniform(0.5, 1.5)
        for visit in range(3):
            request_id, at_ms = f"r{n}-{visit}", int(generator.integers(5 * DAY_MS))
            draft = team_draft([1, 2, 3, 4], [5, 6, 7, 8], 4, "s", request_id)
            teams = [NOBODYS if team is None else team for team in draft.team]
            items = "".join(chr(96 + item) for item in draft.items)
            lists.append(drafted(request_id, f"u{n}", items, teams, at_ms))
            for item, team in zip(items, teams, strict=True):
                if generator.random() < taste * (0.15 + (better if team == 1 else 0)):
                    events.append(
                        event(request_id, item, at_ms + 100, event_id=f"{request_id}-{item}", user_id=f"u{n}")
                    )
    write(home, lists, events)
    return true_preference(better)


def true_preference(better: float) -> float:
    """P(team 1 gets more of two clicks than team 0 of two) less the reverse, over tastes."""
    total = 0.0
    for taste in np.linspace(0.5, 1.5, 1001):
        p, q = taste * 0.15, taste * (0.15 + better)
        first, second = ([(1 - r) ** 2, 2 * r * (1 - r), r * r] for r in (p, q))
        total += sum(first[i] * second[j] * np.sign(j - i) for i in range(3) for j in range(3))
    return float(total / 1001)


def test_a_known_preference_is_found_and_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = simulated(home, 700, 0.1)
    report = build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)
    assert report.preference.low is not None
    assert report.preference.high is not None
    assert report.preference.low < truth < report.preference.high
    assert report.advice.verdict == "ship"
    assert report.advice.variant == "b"
    assert "people prefer b: it won" in report.advice.reason
    assert report.advice.cautions[0].startswith("it says which is preferred, not how far a metric moves")
    monkeypatch.setattr(parts, "BUCKET_BYTES", 10_000)
    again = build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)
    told, told_again = (
        json.loads(one.model_dump_json(), parse_float=lambda text: f"{float(text):.9g}")
        for one in (report, again)
    )
    assert told == told_again


def test_the_control_may_be_preferred(home: Home) -> None:
    simulated(home, 700, -0.09)
    report = build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)
    assert report.advice.verdict == "stop"
    assert "people prefer the control, a: it won" in report.advice.reason


def test_no_preference_of_the_size_that_is_worth_finding_ends_it(home: Home) -> None:
    simulated(home, 500, 0.0)
    wanted = duel(minimum_detectable_effect=0.2)
    report = build_interleaving_report(home, CATALOGUE, wanted, now_ms=LATER_MS)
    assert report.advice.verdict == "stop"
    assert "neither is preferred by 0.2 or more" in report.advice.reason
    small = build_interleaving_report(home, CATALOGUE, duel(minimum_detectable_effect=0.02), now_ms=LATER_MS)
    assert small.advice.verdict == "keep running"
    assert "more units would find a preference of 0.02 four times out of five" in small.advice.reason


def test_units_that_all_say_the_same_are_not_enough_to_say(home: Home) -> None:
    lists = [drafted(f"r{n}", f"u{n}", "ab", [0, 1]) for n in range(2)]
    write(home, lists, [event(f"r{n}", "b", 10) for n in range(2)])
    report = build_interleaving_report(home, CATALOGUE, duel(), now_ms=LATER_MS)
    assert (report.preference.value, report.preference.low, report.preference.high) == (1, -1, 1)
    assert (report.p_value, report.always_valid_p_value) == (1, 1)
    assert report.advice.verdict == "keep running"
    assert "not enough to say how sure that is" in report.advice.reason


def test_how_many_units_are_missing_is_told_by_the_whole_error(home: Home) -> None:
    """Scores 1 and -1 of two units: their mean's error is sqrt(2 / 1 * (1 + 1)) / 2 = 1, whose interval reaches beyond 1."""
    write(
        home,
        [drafted(f"r{n}", f"u{n}", "ab", [0, 1]) for n in range(2)],
        [event("r0", "a", 10), event("r1", "b", 10)],
    )
    report = build_interleaving_report(home, CATALOGUE, duel(minimum_detectable_effect=0.2), now_ms=LATER_MS)
    assert (report.preference.low, report.preference.high) == (-1, 1)
    # 2 ((1 * (1.959964 + .841621) / .2)^2 - 1) = 390.4
    assert "about 391 more units would find a preference of 0.2" in report.advice.reason


def test_the_page_is_whole_and_keeps_what_customers_wrote_as_text(home: Home) -> None:
    simulated(home, 60, 0.1)
    wanted = duel(hypothesis="<b>bold</b>")
    report = build_interleaving_report(home, CATALOGUE, wanted, now_ms=LATER_MS)
    assert InterleavingReport.model_validate_json(report.model_dump_json()) == report
    page = render_interleaving(report)
    body = page[page.index("<body>") :]
    assert "<b>bold</b>" not in body
    assert "http" not in body
    figure = preference_over_time(report)
    assert figure["data"][-1]["y"] == [look.fixed.value for look in report.looks]
    assert len(report.looks) > 10
