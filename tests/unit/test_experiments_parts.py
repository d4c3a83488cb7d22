"""A log read in many parts is the log read whole, and both are what one finds by asking of every event whose it is."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, WINDOW_MS, decision, event, experiment, write

from tastemaker.data.schema import INTERACTIONS_SCHEMA, imported_folder
from tastemaker.errors import DataError, ExperimentError
from tastemaker.events.log import Entry
from tastemaker.experiments.definition import Interleaving
from tastemaker.experiments.reporting import parts
from tastemaker.experiments.reporting.days import EVENTS, of_experiment
from tastemaker.experiments.reporting.earned import all_tallies
from tastemaker.experiments.reporting.joining import Slates, join
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.experiments.reporting.parts import LogParts, Part
from tastemaker.experiments.reporting.report import build_report
from tastemaker.experiments.reporting.spill import Spill
from tastemaker.home import Home
from tastemaker.types import EVENT_KINDS

ITEMS = [f"i{n}" for n in range(12)]
NOW_MS = 20 * DAY_MS
LIVE = {"origin": "live"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def small_log(seed: int) -> tuple[list[Entry], list[Entry]]:
    """Answers of forty users over two days, some of another layer's assignment, some twice; events of all kinds, also of strangers and of others' requests."""
    generator = np.random.default_rng(seed)
    decisions, events = [], []
    for n in range(150):
        user, at_ms = f"u{generator.integers(40)}", int(generator.integers(DAY_MS, 3 * DAY_MS))
        fields: dict[str, Any] = {
            "item_ids": generator.permutation(ITEMS)[:4].tolist(),
            "user_id": user,
            **LIVE,
        }
        variant = "ab"[sum(map(ord, user)) % 2]
        if n % 5 == 0:
            kept = {
                "experiment": "exp",
                "variant": variant,
                "unit": user,
                "epoch": 0,
                "propensities": [0.5, 0.5],
            }
            fields |= {
                "assignments": [json.dumps(kept)],
                "experiment": "other",
                "propensities": (1.0,),
                "epoch": 3,
            }
        one = decision(f"r{n}", f"visit-{user}" if n % 5 and n % 7 == 0 else user, variant, at_ms, **fields)
        decisions.append(one)
        if n % 11 == 0:
            decisions.append(Entry(f"{START_MS + at_ms + 7}-0", one.json))
    for n in range(900):
        user, at_ms = f"u{generator.integers(44)}", int(generator.integers(0, 4 * DAY_MS))
        request = None if generator.random() < 0.4 else f"r{generator.integers(170)}"
        kind = str(generator.choice(["click", "impression", "purchase", "rating", "view"]))
        if request is not None and n % 3:
            user = json.loads(decisions[int(generator.integers(len(decisions)))].json)["user_id"]
        value = float(generator.integers(1, 9)) if kind in ("purchase", "rating") else None
        one = event(
            request,
            str(generator.choice(ITEMS)),
            at_ms,
            kind=kind,
            value=value,
            event_id=f"e{n}",
            user_id=user,
            **LIVE,
        )
        events.append(one)
        if n % 13 == 0:
            events.append(Entry(f"{START_MS + at_ms + 5}-0", one.json))
    # clicks of those who got the list, soon after it
    for n, one in enumerate(decisions):
        content = json.loads(one.json)
        item = str(generator.choice(content["item_ids"]))
        at_ms = content["timestamp_ms"] - START_MS + int(generator.integers(WINDOW_MS))
        events.append(
            event(content["request_id"], item, at_ms, event_id=f"c{n}", user_id=content["user_id"], **LIVE)
        )
    return decisions, events


def write_log(home: Home, seed: int) -> tuple[list[Entry], list[Entry]]:
    decisions, events = small_log(seed)
    for half in (slice(None, None, 2), slice(1, None, 2)):
        write(home, decisions[half], events[half])
    folder = imported_folder(home, CATALOGUE)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    rows = [
        {"user_id": f"u{generator.integers(50)}", "item_id": str(generator.choice(ITEMS)), "kind": "view", "value": None, "timestamp_ms": START_MS - int(generator.integers(20 * DAY_MS))}
        for _ in range(200)
    ]  # fmt: skip
    columns = {
        name: [({"origin": "import"} | row).get(name) for row in rows] for name in INTERACTIONS_SCHEMA.names
    }
    pq.write_table(pa.table(columns, schema=INTERACTIONS_SCHEMA), folder / "interactions.parquet")
    return decisions, events


def seen_in(home: Home, monkeypatch: pytest.MonkeyPatch, bucket_bytes: int) -> Observations:
    monkeypatch.setattr(parts, "BUCKET_BYTES", bucket_bytes)
    return read_observations(home, CATALOGUE, experiment(**LIVE), START_MS + NOW_MS)


def touches_in(home: Home, monkeypatch: pytest.MonkeyPatch, bucket_bytes: int) -> Counter[tuple[Any, ...]]:
    """What events belong to: id of the decision, item, kind, delay and value."""
    monkeypatch.setattr(parts, "BUCKET_BYTES", bucket_bytes)
    one, found = experiment(**LIVE), Counter[tuple[Any, ...]]()

    def count(first_ms: int, read: Iterator[Part]) -> None:
        for part in read:
            slates = Slates.of(part.answers["item_ids"])
            touches = join(part.answers, slates, part.events_to_join(first_ms)).touches
            ids, items = part.answers["decision_id"].to_pylist(), slates.items.to_pylist()
            columns = (touches.row_E, touches.item_E, touches.kind_E, touches.delay_ms_E, touches.value_E)
            found.update(
                (ids[row], items[item], EVENT_KINDS[kind], delay, value)
                for row, item, kind, delay, value in zip(*(c.tolist() for c in columns), strict=True)
            )

    window_ms = one.attribution_window_ms
    LogParts(home, CATALOGUE, of_experiment(one), window_ms, START_MS + NOW_MS, with_past=True).read(count)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_many_parts_as_whole(home: Home, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    write_log(home, seed)
    whole, many = (seen_in(home, monkeypatch, size) for size in (2**30, 2_000))
    for name in (
        "unit_R", "variant_R", "epoch_R", "timestamp_ms_R", "shown_ms_R", "propensity_RV", "degraded_R", "latency_ms_R",
        "device_R", "country_R",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(whole, name), getattr(many, name), err_msg=name)
    assert whole.units.equals(many.units)
    assert whole.lists.items.equals(many.lists.items)
    assert set(whole.rows.earned) == set(many.rows.earned) == set(all_tallies(WINDOW_MS))
    for shown, other in zip(lists_of(whole), lists_of(many), strict=True):
        assert shown == other
    for tally, column_R in whole.rows.earned.items():
        np.testing.assert_array_equal(column_R, many.rows.earned[tally], err_msg=str(tally))
    for one in ("unit_N", "start_ms_N", "lasted_ms_N"):
        np.testing.assert_array_equal(getattr(whole.visits, one), getattr(many.visits, one), err_msg=one)
    clicks = [
        Counter(zip(seen.clicks.row_E.tolist(), seen.clicks.item_E.tolist(), strict=True))
        for seen in (whole, many)
    ]
    assert clicks[0] == clicks[1]
    for one in ("interactions_U", "interactions_I", "num_UK"):
        np.testing.assert_array_equal(getattr(whole.past, one), getattr(many.past, one), err_msg=one)
    assert whole.past.value_U["purchase"].tolist() == many.past.value_U["purchase"].tolist()
    assert (whole.num_open, whole.unknown_events) == (many.num_open, many.unknown_events)


def lists_of(seen: Observations) -> list[list[str]]:
    items = seen.lists.items.to_pylist()
    number_S, lengths = seen.lists.items_of(seen.rows.list_R)
    return [[items[i] for i in one] for one in np.split(number_S, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_event_belongs_to_the_answer_that_one_finds_by_looking(
    home: Home, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    decisions, events = write_log(home, seed)
    answers: dict[str, Any] = {}
    for entry in sorted(decisions, key=lambda one: one.received_ms):
        content = json.loads(entry.json)
        answers.setdefault(content["decision_id"], content | {"received_ms": entry.received_ms})
    rows = sorted(answers.values(), key=lambda one: (one["timestamp_ms"], one["decision_id"]))
    expected: Counter[tuple[Any, ...]] = Counter()
    told: dict[str, Any] = {}
    for entry in sorted(events, key=lambda one: one.received_ms):
        content = json.loads(entry.json)
        told.setdefault(content["event_id"], content | {"received_ms": entry.received_ms})
    for one in told.values():
        found = None
        for row, answer in enumerate(rows):
            shows = one["item_id"] in answer["item_ids"]
            if one["request_id"] is not None:
                found = row if shows and answer["request_id"] == one["request_id"] else found
            elif (
                shows and answer["user_id"] == one["user_id"] and answer["received_ms"] <= one["received_ms"]
            ):
                found = row if found is None or answer["received_ms"] >= rows[found]["received_ms"] else found
        if found is not None:
            shown_ms, own_ms = rows[found]["received_ms"], one["timestamp_ms"]
            came_ms = own_ms if shown_ms <= own_ms <= one["received_ms"] else one["received_ms"]
            touch = (one["item_id"], one["kind"], came_ms - shown_ms, one["value"] or 0.0)
            expected[rows[found]["decision_id"], *touch] += 1
    for size in (2**30, 2_000):
        assert touches_in(home, monkeypatch, size) == expected
    assert sum(expected.values()) > 200


def test_a_report_in_many_parts_says_the_same(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(home, 4)
    texts = []
    for size in (2**30, 2_000):
        monkeypatch.setattr(parts, "BUCKET_BYTES", size)
        report = build_report(home, CATALOGUE, experiment(**LIVE), now_ms=START_MS + NOW_MS)
        texts.append(json.loads(report.model_dump_json(), parse_float=lambda text: f"{float(text):.10g}"))
    assert texts[0] == texts[1]


def test_nothing_stays_in_the_temporary_folder(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_log(home, 1)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert len(seen_in(home, monkeypatch, 2_000)) > 100
    assert list(folder.iterdir()) == []


def test_files_of_one_kind_are_open_at_a_time(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_log(home, 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(parts, "BUCKET_BYTES", 2_000)
    seen: list[Counter[str]] = []
    put = Spill.put

    def counted(self: Spill, *arguments: Any) -> None:
        put(self, *arguments)
        paths = [Path(os.path.realpath(path)) for path in Path("/proc/self/fd").iterdir()]
        mine = [path.name for path in paths if "tastemaker-report-" in path.parent.name]
        seen.append(Counter(name.partition("-")[0] for name in mine))

    monkeypatch.setattr(Spill, "put", counted)
    assert len(read_observations(home, CATALOGUE, experiment(**LIVE), START_MS + NOW_MS)) > 100
    assert {kind for one in seen for kind in one} == {"answers", "events", "imported"}
    assert all(len(one) == 1 for one in seen)
    assert max(seen[0].values()) > 8


def test_a_full_temporary_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = EVENTS.empty_table()
    with Spill(2) as spill:
        for folder in tmp_path.iterdir():
            folder.rmdir()
        with pytest.raises(DataError, match="name another folder by TMPDIR"):
            spill._write("events", 0, rows)


def test_an_interleaving_has_no_observations(home: Home) -> None:
    with pytest.raises(ExperimentError, match="it is an interleaving: read its report"):
        read_observations(home, CATALOGUE, experiment(allocation=Interleaving()), START_MS)
