"""Lists of people, from the command line to what a request is proposed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tagged import write_bundle

from tastemaker import cli, context
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import ConfigError, UsageError
from tastemaker.stages.editorial import MOST_LISTS, EditorialList, EditorialLists, EditorialSource, write_list
from tastemaker.stages.live import LiveStages
from tastemaker.types import Query

ROWS = {f"i{row}": row for row in range(10)}
NOTHING = np.empty(0, np.int32)
NOON_MS = 1_764_590_400_000  # 2025-12-01T12:00Z, a Monday


def listed(*items: str, **more: object) -> EditorialList:
    return EditorialList.parse({"items": list(items), **more}, "test")


def proposed(*lists: EditorialList, query: Query | None = None) -> list[tuple[int, float]]:
    source = EditorialSource("editorial", ROWS.get, lambda: lists)
    rows, scores = source.propose([query or Query(NOTHING, now_ms=NOON_MS)], 5)
    return [
        (row, round(score, 3))
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        if row >= 0
    ]


def test_scores_fall_down_a_list_and_the_best_place_counts() -> None:
    first, second = listed("i1", "gone", "i2", "i3"), listed("i3", "i1", weight=2.0)
    assert proposed(first) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert proposed(first, second) == [(3, 2.0), (1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(
    ("more", "is_proposed"),
    [
        ({"starts": "2025-12-01T12:00Z", "ends": "2025-12-01T12:00:01Z"}, True),
        ({"starts": "2025-12-01T13:00:01+01:00"}, False),
        ({"ends": "2025-12-01T12:00Z"}, False),
        ({"when": {"countries": ["DE"], "weekdays": ["monday"]}}, True),
        ({"when": {"countries": ["FR"]}}, False),
        ({"when": {"devices": ["tv"]}}, False),
    ],
)
def test_a_list_is_for_a_time_and_for_some_requests(more: dict[str, object], is_proposed: bool) -> None:
    query = Query(NOTHING, now_ms=NOON_MS, context={"country": "de", "device": "mobile"})
    assert bool(proposed(listed("i1", **more), query=query)) == is_proposed


def test_hard_rules_stand_above_lists() -> None:
    query = Query(np.array([1], np.int32), exclude=np.array([2], np.int32), now_ms=NOON_MS)
    assert proposed(listed("i1", "i2", "i3"), query=query) == [(3, 0.333)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"items": []}, "items"),
        ({"items": ["a", "a"]}, "named once"),
        ({"items": ["a"], "starts": "2025-12-01T12:00"}, "timezone"),
        ({"items": ["a"], "starts": "2025-12-02T12:00Z", "ends": "2025-12-01T12:00Z"}, "ends after starts"),
        ({"items": ["a"], "weight": 0}, "weight"),
        ({"items": ["a"], "wait": 1}, "unknown key wait"),
    ],
)
def test_bad_lists_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EditorialList.parse(given, "test")


@pytest.fixture
def settings(state: Any):
    before = context._settings
    context.use(state.settings)
    yield state.settings
    context._settings = before


@pytest.mark.usefixtures("settings")
def test_from_the_command_line_to_the_list_and_away_again(state: Any, tmp_path: Path) -> None:
    file = tmp_path / "winter.yaml"
    file.write_text("items: [i20, i21]\nweight: 2.0\nstarts: 2025-12-01T00:00Z\nwhen: {countries: [de]}\n")
    lists = EditorialLists(state.client, state.keys)
    store = BundleStore(tmp_path / "bundles")
    sources = ("two_tower", "ease", "als", "popular", "editorial")
    bundle = Bundle.open(store, write_bundle(store, sources=sources))
    live = LiveStages(bundle, editorial=lists.current)
    query = Query(np.array([1, 5], np.int32), k=3, now_ms=NOON_MS, context={"country": "DE"})

    def is_proposed() -> bool:
        lists.refresh()
        (found,) = live.pipeline.retrieve([query])
        return bool((found.source_mask[np.isin(found.item_index, [20, 21])] >> 4 & 1).any())

    assert not is_proposed()
    cli.invoke(["editorial", "set", "winter", "--file", str(file)])
    assert is_proposed()
    kept = lists.current()
    lists.refresh()
    assert lists.current() is kept
    assert cli.invoke(["editorial", "list", "--json"])[0]["items"] == ["i20", "i21"]
    cli.invoke(["editorial", "remove", "winter"])
    assert not is_proposed()
    with pytest.raises(UsageError, match="there is no editorial list"):
        cli.invoke(["editorial", "remove", "winter"])


def test_one_that_cannot_be_read_takes_no_other_with_it(state: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_list(state.client, state.keys, "good", listed("i1"))
    state.client.hset(state.keys.editorial, "newer", json.dumps({"items": ["i2"], "colour": "red"}))
    lists = EditorialLists(state.client, state.keys)
    lists.refresh()
    assert [content.items for content in lists.current()] == [("i1",)]
    assert "editorial list newer cannot be read" in caplog.text


def test_names_and_number_of_lists_are_bounded(state: Any) -> None:
    with pytest.raises(UsageError, match="name of an editorial list"):
        write_list(state.client, state.keys, "Winter!", listed("i1"))
    state.client.hset(state.keys.editorial, mapping={f"l{n}": "{}" for n in range(MOST_LISTS)})
    with pytest.raises(UsageError, match="editorial lists"):
        write_list(state.client, state.keys, "one-more", listed("i1"))
