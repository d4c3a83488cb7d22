"""Expected against observed clicks: counted from a log that is written here, by hand and with a known truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import CATALOGUE, START_MS, decision, event, write
from hypothesis import given
from hypothesis import strategies as st
from promotable import write_bundle

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.home import Home
from tastemaker_services.stream import calibration
from tastemaker_services.stream.calibration import (
    BUCKETS,
    WINDOWS_MS,
    Calibrated,
    ScoreKinds,
    calibrated,
    measure_calibration,
)

LATER = 10_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LEAST_SLOTS", 1)


def measure(home: Home, is_probability: Callable[[str], bool] = lambda _: True) -> Calibrated | None:
    return measure_calibration(home, CATALOGUE, is_probability, START_MS, START_MS + LATER)


def answer(name: str, scores: list[float], **fields: Any) -> Any:
    ids = [f"i{n}" for n in range(len(scores))]
    return decision(name, name, None, 1, **{"item_ids": ids, "scores": scores, "origin": "live"} | fields)


def seen(*arguments: Any, **fields: Any) -> Any:
    return event(*arguments, **{"origin": "live"} | fields)


@pytest.mark.usefixtures("any_number")
def test_by_hand(home: Home) -> None:
    answers = [answer("r1", [0.6, 0.3, 0.015]), answer("r2", [0.7, 0.25])]
    events = [
        *(seen("r1", f"i{n}", 2, "impression") for n in (0, 1)),  # the third was never seen
        seen("r1", "i0", 3),
        seen("r1", "i0", 4),  # again
        seen("r1", "i2", 3),  # no impression came: it counts for nothing
        seen("r2", "i1", WINDOWS_MS["live"] - 1),  # no impression of this answer: all of it is seen
        seen("r2", "i0", WINDOWS_MS["live"] + LATER + 1),  # too late
        seen(None, "i0", 3),
        seen("r1", "i1", 3, "purchase"),
    ]
    write(home, answers, events)
    found = measure(home)
    assert found is not None
    assert dict(zip(BUCKETS, found.slots_B.tolist(), strict=True)) == {
        "0-0.01": 0, "0.01-0.02": 0, "0.02-0.05": 0, "0.05-0.1": 0, "0.1-0.2": 0, "0.2-0.5": 2, "0.5-1": 2,
    }  # fmt: skip
    assert found.expected_B[5:].tolist() == pytest.approx([(0.3 + 0.25) / 2, (0.6 + 0.7) / 2])
    assert found.observed_B[5:].tolist() == [1 / 2, 1 / 2]
    assert np.isnan(found.expected_B[:5]).all()
    assert found.error == pytest.approx((2 * abs(0.5 - 0.275) + 2 * abs(0.5 - 0.65)) / 4)


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    "fields",
    [
        {"rungs": ["retrieval-order"]}, {"rungs": ["no-history", "popular"]}, {"shadow_of": "r1"},
        {"policy": '{"until":"retrieve"}'}, {"bundle": "of watch time"}, {"origin": "simulator"}, {"slot_team": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_answers_whose_scores_are_something_else_are_left_out(home: Home, fields: dict[str, Any]) -> None:
    write(home, [answer("r1", [0.6])])
    one = answer("r2", [0.9], **{k: v for k, v in fields.items() if k != "bundle"})
    if "bundle" in fields:
        one = type(one)(one.id, json.dumps(json.loads(one.json) | fields))
    write(home, [one])
    found = measure(home, lambda bundle: bundle != "of watch time")
    assert found is not None
    assert (int(found.slots_B.sum()), found.expected_B[6]) == (1, pytest.approx(0.6))


@pytest.mark.usefixtures("any_number")
def test_rungs_that_leave_the_rankers_scores_count(home: Home) -> None:
    write(home, [answer("r1", [0.6], rungs=["no-rerank", "base-vector"])])
    assert measure(home) is not None


@pytest.mark.usefixtures("any_number")
def test_events_of_other_traffic_count_for_nothing(home: Home) -> None:
    write(home, [answer("r1", [0.6])], [seen("r1", "i0", 3, origin="simulator")])
    found = measure(home)
    assert found is not None
    assert found.observed_B[6] == 0


@pytest.mark.usefixtures("any_number")
def test_simulated_traffic_is_measured_for_itself(home: Home) -> None:
    write(
        home,
        [answer("r1", [0.6]), answer("r2", [0.3, 0.4], origin="simulator")],
        [
            seen("r1", "i0", 3),
            seen("r2", "i0", 3, origin="simulator"),
            seen("r2", "i1", WINDOWS_MS["simulator"] + LATER + 1, origin="simulator"),  # they click at once
            seen("r2", "i1", 3),
        ],
    )
    live = measure(home)
    simulated = measure_calibration(home, CATALOGUE, lambda _: True, START_MS, START_MS + LATER, "simulator")
    assert live is not None
    assert simulated is not None
    assert (live.slots_B.sum(), live.observed_B[6]) == (1, 1)
    assert (simulated.slots_B.sum(), simulated.observed_B[5]) == (2, 1 / 2)
    assert simulated.expected_B[5] == pytest.approx((0.3 + 0.4) / 2)


@pytest.mark.usefixtures("any_number")
def test_days_before_are_not_opened(home: Home) -> None:
    write(home, [answer("r1", [0.6])], [seen("r1", "i0", 3)])
    for kind in ("decisions", "events"):
        old = home / kind / CATALOGUE / "day=2020-01-01" / "part-1-a.parquet"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"cannot be read")
    found = measure(home)
    assert found is not None
    assert found.observed_B[6] == 1


def test_few_slots_say_nothing(home: Home) -> None:
    assert measure(home) is None
    write(home, [answer("r1", [0.5] * 999)])
    assert measure(home) is None
    write(home, [answer("r2", [0.5])])
    found = measure(home)
    assert found is not None
    assert found.error == 0.5


@pytest.mark.parametrize(("factor", "error"), [(1.0, 0.0), (2.0, 0.05)])
def test_a_ranker_that_promises_too_much_is_seen(home: Home, factor: float, error: float) -> None:
    """Clicks are drawn with probabilities of .02 to .08; scores say `factor` times as much. Mean gap: .05 (factor - 1)."""
    random = np.random.default_rng(0)
    true_RS = random.uniform(0.02, 0.08, (1000, 20))
    clicks_RS = random.random(true_RS.shape) < true_RS
    write(
        home,
        [answer(f"r{r}", (true_R * factor).tolist()) for r, true_R in enumerate(true_RS)],
        [seen(f"r{r}", f"i{s}", 5) for r, s in np.argwhere(clicks_RS).tolist()],
    )
    found = measure(home)
    assert found is not None
    assert found.error == pytest.approx(error, abs=0.005)  # 20,000 slots: the gap's standard error is .0015
    drawn = calibrated((true_RS * factor).ravel(), clicks_RS.ravel())
    assert found.observed_B == pytest.approx(drawn.observed_B, nan_ok=True)
    assert found.expected_B == pytest.approx(drawn.expected_B, nan_ok=True)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_buckets_are_a_partition_and_the_error_is_a_ratio(slots: list[tuple[float, bool]]) -> None:
    score_N, clicked_N = np.array([s for s, _ in slots]), np.array([c for _, c in slots])
    found = calibrated(score_N, clicked_N)
    assert found.slots_B.sum() == len(slots)
    full = found.slots_B > 0
    assert np.average(found.expected_B[full], weights=found.slots_B[full]) == pytest.approx(score_N.mean())
    assert np.average(found.observed_B[full], weights=found.slots_B[full]) == pytest.approx(clicked_N.mean())
    assert abs(score_N.mean() - clicked_N.mean()) - 1e-9 <= found.error <= 1


def bundle(store: BundleStore, **files: Any) -> BundleRef:
    writer = BundleWriter(store, CATALOGUE)
    for name, content in files.items():
        writer.add_json(f"{name}.json", content)
    return writer.commit(BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe=str(files), training_id="t"))


def test_a_bundle_says_what_its_scores_are(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    kinds = ScoreKinds(store, CATALOGUE)
    of_clicks = bundle(store, pipeline={"ranking": {"score_weights": {"click": 1.0}}}, calibration={})
    of_watching = bundle(
        store, pipeline={"ranking": {"score_weights": {"click": 1, "watch": 2}}}, calibration={}
    )
    assert kinds.is_probability(of_clicks.bundle_id)
    assert kinds.is_probability(bundle(store, pipeline={"retrieval": {}}, calibration={}).bundle_id)
    assert not kinds.is_probability(of_watching.bundle_id)
    assert not kinds.is_probability(write_bundle(store, catalogue=CATALOGUE).bundle_id)  # no ranker
    assert not kinds.is_probability("0" * 12)
