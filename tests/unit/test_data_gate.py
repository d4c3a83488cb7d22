"""The data gate: figures worked out by hand, data beside itself, and one poison for each check."""

import doctest
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker.errors import ConfigError, DataError
from tastemaker_training.plan import data_gate, data_profile
from tastemaker_training.plan.data_gate import CheckResult, DataGateConfig, check, psi, psi_by_chance
from tastemaker_training.plan.data_profile import DataProfile, IdSketch, profile

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NUM_USERS, NUM_ITEMS, NUM_ROWS = 300, 100, 6000
Rows = dict[str, Any]


def build(rows: Rows, category: list[str] | None = None) -> Dataset:
    """The dataset of columns of events; items of the ids that occur."""
    ids = sorted(set(rows["item_id"]))
    items = pa.table(
        {
            "item_id": ids,
            "title": [f"the {one}" for one in ids],
            "category": category or ["drama"] * len(ids),
            "tags": [["drama"]] * len(ids),
            "created_at_ms": [1] * len(ids),
        },
        schema=ITEMS_SCHEMA,
    )
    constant = {"kind": ["rating"] * len(ids), "origin": ["live"] * len(rows["user_id"])}
    unknown = dict.fromkeys(("position", "device"), [None] * len(rows["user_id"]))
    return build_dataset(pa.table(unknown | constant | rows, schema=INTERACTIONS_SCHEMA), items)


def healthy(seed: int = 0, num_rows: int = NUM_ROWS) -> Rows:
    """Ratings of thirty days: items by a falling popularity, hours mostly in the evening, few ones, many fours."""
    random = np.random.default_rng(seed)
    popularity_I = 1 / np.arange(1, NUM_ITEMS + 1)
    hour_N = (random.normal(19, 3, num_rows) % 24).astype(int)
    day_N = random.integers(0, 30, num_rows)
    return {
        "user_id": [f"u{n}" for n in random.integers(0, NUM_USERS, num_rows)],
        "item_id": [f"i{n}" for n in random.choice(NUM_ITEMS, num_rows, p=popularity_I / popularity_I.sum())],
        "kind": ["rating" if one else "click" for one in random.random(num_rows) < 0.8],
        "value": random.choice([1.0, 2.0, 3.0, 4.0, 5.0], num_rows, p=[0.05, 0.1, 0.25, 0.4, 0.2]).tolist(),
        "timestamp_ms": (day_N * DAY_MS + hour_N * HOUR_MS + random.integers(0, HOUR_MS, num_rows)).tolist(),
    }


def refused(
    new: Dataset | DataProfile, config: DataGateConfig | None = None, now_ms: int = 30 * DAY_MS
) -> set[str]:
    """Names of the checks that refuse `new` beside healthy data."""
    new = new if isinstance(new, DataProfile) else profile(new)
    results = check(new, profile(build(healthy())), config or DataGateConfig(), now_ms)
    return {result.name for result in results if not result.passed}


def test_the_documented_figures_hold() -> None:
    for module in (data_gate, data_profile):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


def test_psi_is_what_the_formula_gives_by_hand() -> None:
    # Shares .2 .3 .5 and .3 .3 .4; the third bin of counts is empty in both.
    expected = 0.1 * math.log(0.3 / 0.2) + 0.0 + (-0.1) * math.log(0.4 / 0.5)
    assert psi([20, 30, 0, 50], [3, 3, 0, 4]) == pytest.approx(expected, rel=1e-12)  # float64
    assert psi([1, 1], [2, 2]) == 0.0
    # A bin that one side lacks counts as 1e-4 of it.
    assert psi([10, 0], [5, 5]) == pytest.approx(
        -0.5 * math.log(0.5) + (0.5 - 1e-4) * math.log(0.5 / 1e-4), rel=1e-12
    )


def test_psi_of_small_samples_is_bounded_by_what_chance_gives() -> None:
    # Quantile 0.99 of chi-square: 9.2103 at 2 degrees. 1/20 + 1/30 = 1/12.
    assert psi_by_chance([10, 5, 5], [10, 10, 10]) == pytest.approx(
        9.2103 / 12, abs=1e-4
    )  # the table's digits
    assert psi_by_chance([3], [4]) == 0.0
    few = profile(build(healthy(1, num_rows=60)))
    others = profile(build(healthy(2, num_rows=60)))
    hours = {result.name: result for result in check(few, others, DataGateConfig(), 0)}["psi_hours"]
    assert hours.value > 0.25
    assert hours.passed
    assert hours.reason == "PSI; the bound is what chance alone gives"


def test_a_profile_counts_what_is_in_the_data() -> None:
    found = profile(
        build(
            {
                "user_id": ["u", "u", "v", "v", "v"],
                "item_id": ["a", "b", "a", "a", "a"],
                "kind": ["rating", "click", "rating", "rating", "watch"],
                "value": [4.0, None, 0.5, 0.0, 90.0],
                "timestamp_ms": [0, HOUR_MS, 25 * HOUR_MS, 25 * HOUR_MS, 90 * HOUR_MS],
            },
            category=["", "x"],
        ),
        num_invalid=2,
    )
    assert (found.num_rows, found.num_invalid, found.num_duplicates) == (5, 2, 1)
    assert (found.first_ms, found.last_ms, found.largest_gap_ms) == (0, 90 * HOUR_MS, 65 * HOUR_MS)
    assert found.missing == {"title": 0.0, "category": 0.5, "tags": 0.0, "created_at_ms": 0.0}
    assert found.kinds == (0, 1, 0, 0, 3, 1)  # view, click, like, purchase, rating, watch
    assert {n: count for n, count in enumerate(found.hours) if count} == {
        0: 1,
        1: 3,
        18: 1,
    }  # 90 = 3 * 24 + 18
    # Bins of a quarter from 0: 0.5 (the click's weight as well) is in bin 3, 4.0 in bin 17; 90 is in 80 to 160.
    assert {n: count for n, count in enumerate(found.values) if count} == {1: 1, 3: 2, 17: 1, 44: 1}
    assert found.histories[:3] == (0, 2, 0)  # 2 and 3 events
    assert (found.users.num_ids, found.items.num_ids) == (2, 2)


def test_a_profile_survives_json() -> None:
    made = profile(build(healthy()))
    assert DataProfile.parse(made.model_dump(mode="json"), "data_profile.json") == made
    with pytest.raises(ConfigError, match=r"data_profile.json: num_rows, is '7'"):
        DataProfile.parse(made.model_dump(mode="json") | {"num_rows": "7"}, "data_profile.json")


def test_data_without_an_event_has_no_profile() -> None:
    rows = {"user_id": ["u"], "item_id": ["a"], "kind": ["impression"], "value": [None], "timestamp_ms": [1]}
    with pytest.raises(DataError, match="events that show use, is 0"):
        profile(build(rows))


@given(
    events=st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(0, 9), st.sampled_from(["rating", "click", "watch"]),
            st.one_of(st.none(), st.floats(-10, 1e6, width=32)), st.integers(0, 10**13),
        ),
        min_size=1, max_size=60,
    ),
    num_invalid=st.integers(0, 100),
)  # fmt: skip
def test_data_passes_beside_itself(events: list[tuple[Any, ...]], num_invalid: int) -> None:
    user, item, kind, value, time = zip(*events, strict=True)
    rows = {"user_id": list(map(str, user)), "item_id": list(map(str, item)), "kind": kind, "value": value}
    one = profile(build(rows | {"timestamp_ms": time}), num_invalid)
    config = DataGateConfig(max_gap_hours=1.0)
    results = check(one, one, config, now_ms=0)
    assert [result for result in results if not result.passed] == []
    assert {result.value for result in results if result.name.startswith("psi_")} == {0.0}


def test_another_sample_of_the_same_world_passes() -> None:
    assert refused(build(healthy(seed=1))) == set()


def test_a_day_more_of_the_same_passes() -> None:
    day = healthy(seed=2, num_rows=200)
    day["timestamp_ms"] = [30 * DAY_MS + time % DAY_MS for time in day["timestamp_ms"]]
    old = healthy()
    assert refused(build({key: [*old[key], *day[key]] for key in old})) == set()


def test_a_tenth_of_the_volume_is_refused() -> None:
    rows = healthy()
    assert "rows" in refused(build({key: column[::10] for key, column in rows.items()}))


def test_ten_times_the_volume_is_refused() -> None:
    results = check(
        profile(build(healthy(num_rows=60_000))), profile(build(healthy())), DataGateConfig(), 30 * DAY_MS
    )
    assert results[0] == CheckResult("rows", 10.0, 5.0, False, "60,000, the champion had 6,000")


def test_nine_of_ten_ids_unseen_are_refused() -> None:
    rows = healthy()
    renamed = {
        name: [one if int(one[1:]) % 10 == 0 else f"new-{one}" for one in rows[name]]
        for name in ("user_id", "item_id")
    }
    assert refused(build(rows | {"item_id": renamed["item_id"]})) == {"new_items"}
    assert refused(build(rows | {"user_id": renamed["user_id"]})) == {"new_users"}


def test_shuffled_ratings_are_refused() -> None:
    rows = healthy()
    swapped = {1.0: 4.0, 2.0: 5.0, 3.0: 2.0, 4.0: 1.0, 5.0: 3.0}
    assert refused(build(rows | {"value": [swapped[value] for value in rows["value"]]})) == {"psi_values"}


def test_events_of_one_hour_are_refused() -> None:
    rows = healthy()
    rows["timestamp_ms"] = [time // DAY_MS * DAY_MS + 3 * HOUR_MS for time in rows["timestamp_ms"]]
    assert refused(build(rows)) >= {"psi_hours"}


def test_half_missing_is_refused_with_the_columns_name() -> None:
    rows = healthy()
    dataset = build(rows)
    half = build(rows, category=["drama" if n % 2 else "" for n in range(NUM_ITEMS)])
    (result,) = [r for r in check(profile(half), profile(dataset), DataGateConfig(), 0) if not r.passed]
    assert (result.name, result.value, result.limit) == ("missing", 0.5, 0.1)
    assert result.reason == "share of category 0.500, was 0.000"


def test_refused_rows_and_repeated_events_are_refused() -> None:
    rows = healthy()
    assert refused(profile(build(rows), num_invalid=NUM_ROWS)) == {"invalid"}
    assert "duplicates" in refused(build({key: column + column[:1000] for key, column in rows.items()}))


def test_other_kinds_popularity_and_histories_are_refused() -> None:
    rows = healthy()
    assert refused(build(rows | {"kind": ["click"] * NUM_ROWS})) == {"psi_kinds"}
    flat = [f"i{n % NUM_ITEMS}" for n in range(NUM_ROWS)]
    assert refused(build(rows | {"item_id": flat})) == {"psi_popularity"}
    bots = [f"u{n}" if n < NUM_USERS else f"u{n % 3}" for n in range(NUM_ROWS)]
    assert refused(build(rows | {"user_id": bots})) == {"psi_histories"}


def test_data_that_ends_before_the_champions_is_refused_and_age_and_gap_where_asked() -> None:
    rows = healthy()
    earlier = build(rows | {"timestamp_ms": [time % (27 * DAY_MS) for time in rows["timestamp_ms"]]})
    assert refused(earlier) == {"step_back"}
    dataset = build(rows)
    later = 30 * DAY_MS + 50 * HOUR_MS
    assert refused(dataset, now_ms=later) == set()
    assert refused(dataset, DataGateConfig(max_age_hours=48.0), later) == {"age"}
    gap = build(rows | {"timestamp_ms": [*rows["timestamp_ms"][:-1], 40 * DAY_MS]})
    assert refused(gap) == set()
    assert refused(gap, DataGateConfig(max_gap_hours=48.0)) == {"gap"}


def test_overlap_of_large_sets_is_estimated_within_two_points() -> None:
    many, more = ([f"{prefix}{n}" for n in range(30_000)] for prefix in ("a", "b"))
    sketch = IdSketch.of(many[:10_000] + more[:20_000])
    assert len(sketch.hashes) < len(many)
    # A third of it is in `many`; 2,048 hashes have a standard error of at most 1.1 points.
    assert sketch.share_outside(IdSketch.of(many)) == pytest.approx(2 / 3, abs=0.04)
    assert IdSketch.of(many).share_outside(IdSketch.of(many)) == 0.0
    assert IdSketch.of(more).share_outside(IdSketch.of(many)) == 1.0
