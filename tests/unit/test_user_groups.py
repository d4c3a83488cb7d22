"""What is popular among users of a group: by profiles and devices, in training and as a bundle keeps it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError
from tastemaker.events.archive import encode_part, new_name, write_part
from tastemaker.home import Home
from tastemaker.models.als import AlsConfig, fit_als
from tastemaker.models.popular_groups import GroupsConfig, fit_groups
from tastemaker.models.popularity import Popularity, fit_popularity
from tastemaker.stages.content import ContentSource
from tastemaker.stages.merging import SourceConfig
from tastemaker.stages.nearest import AlsSource
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.types import DEVICES, Query
from tastemaker.users.archive import PROFILE_SCHEMA, profiles_folder
from tastemaker_training.sources.user_groups import demographic_groups, with_groups

NUM_ITEMS = 4


def histories(*rows: tuple[list[int], int]) -> Histories:
    """Of users, each with items and the row of a device."""
    items = [item for own, _ in rows for item in own]
    offsets = np.cumsum([0, *(len(own) for own, _ in rows)])
    devices = [device for own, device in rows for _ in own]
    return Histories(
        offsets.astype(np.int64), np.array(items, np.int32), np.arange(len(items)),
        device_row=np.array(devices, np.int8),
    )  # fmt: skip


def fitted(data: Histories) -> Popularity:
    assert data.timestamp_ms is not None
    return fit_popularity(data.item_index, data.timestamp_ms, NUM_ITEMS)


def test_what_is_popular_by_the_time_of_day_is_asked_for_by_the_users_clock() -> None:
    # Two users take item 3 at 19:00 UTC and item 0 at 6:00; where clocks are two hours ahead it is 21:00 and 8:00.
    hours = np.array([6, 19, 6, 19]) * 3_600_000 + np.array([0, 0, 86_400_000, 86_400_000])
    data = replace(histories(([0, 3], 0), ([0, 3], 0)), timestamp_ms=hours, device_row=None)
    config = GroupsConfig(min_users=2, prior=1e-9, utc_offset_hours=2)
    popularity = with_groups(fitted(data), data, [None, None], config)
    assert popularity.config.groups == ("hours=20-23", "hours=8-11")
    np.testing.assert_allclose(popularity.group_GI, [[0, 0, 0, 1], [1, 0, 0, 0]], atol=1e-6)
    in_the_evening = {"local_time": "2026-11-24T22:59:59-05:00", "device": "tv"}
    assert popularity.class_of(in_the_evening) == ("hours=20-23",)
    assert int(popularity.in_context(in_the_evening).argmax()) == 3
    assert int(popularity.in_context({"local_time": "2026-11-24T08:00"}).argmax()) == 0
    assert popularity.class_of({"local_time": "2026-11-24T12:00"}) == popularity.class_of({}) == ()
    with pytest.raises(DataError, match="local_time, is 'noon', must be an ISO 8601 date with a time"):
        popularity.in_context({"local_time": "noon"})
    untold = GroupsConfig(min_users=2, prior=1e-9)
    assert with_groups(fitted(data), data, [None, None], untold).class_of(in_the_evening) == ()


def test_groups_of_users_and_devices_that_are_large_enough_have_popular_items_of_their_own() -> None:
    data = histories(([0, 3], 1), ([0, 3], 1), ([0, 1], 0), ([0, 1], 0), ([0, 2], 4))
    config = GroupsConfig(min_users=2, prior=1e-9)
    groups = ["25-34/f", "25-34/f", None, None, "55-plus/m"]
    popularity = with_groups(fitted(data), data, groups, config)
    assert popularity.config.groups == ("demographic=25-34/f", f"device={DEVICES[0]}")
    np.testing.assert_allclose(popularity.group_GI, [[1, 0, 0, 1], [1, 0, 0, 1]], atol=1e-6)
    score_I = popularity.in_context({"demographic": "25-34/f"})
    np.testing.assert_allclose(score_I, (popularity.trending() + np.array([1, 0, 0, 1])) / 2, atol=1e-6)
    again = Popularity.from_state(popularity.config_dict(), popularity.tensors())
    np.testing.assert_array_equal(
        again.in_context({"device": "mobile"}), popularity.in_context({"device": "mobile"})
    )
    padded = popularity.padded(6)
    np.testing.assert_array_equal(padded.in_context({"demographic": "25-34/f"})[4:], [0, 0])


def test_without_profiles_and_devices_a_popularity_is_what_it_was() -> None:
    data = histories(([0, 1], 0), ([1], 0))
    popularity = fitted(data)
    assert with_groups(popularity, data, [None, None], GroupsConfig()) is popularity
    assert "groups" not in popularity.tensors()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["a", "b", None])), min_size=1),
    st.floats(0.1, 1e4),
)
def test_a_group_is_between_its_own_counts_and_the_whole(
    rows: list[tuple[int, int, str | None]], prior: float
) -> None:
    items, users, groups = (list(column) for column in zip(*rows, strict=True))
    item_index, user_index = np.array(items, np.int32), np.array(users, np.int64)
    config = GroupsConfig(min_users=1, prior=prior)
    names, share_GI = fit_groups(item_index, user_index, groups, NUM_ITEMS, config)
    assert names == sorted({name for name in groups if name})
    assert share_GI.shape == (len(names), NUM_ITEMS)
    whole_I = np.bincount(item_index, minlength=NUM_ITEMS) / len(items)
    for name, share_I in zip(names, share_GI, strict=True):
        own_I = np.bincount([i for i, g in zip(items, groups, strict=True) if g == name], minlength=NUM_ITEMS)
        assert share_I.max() == pytest.approx(1)
        mixed_I = own_I + prior * whole_I
        np.testing.assert_allclose(share_I, mixed_I / mixed_I.max(), rtol=1e-5)
    huge = fit_groups(item_index, user_index, groups, NUM_ITEMS, GroupsConfig(min_users=1, prior=1e9))[1]
    np.testing.assert_allclose(huge, np.tile(whole_I / whole_I.max(), (len(names), 1)), atol=1e-4)


def test_groups_come_from_archived_profiles_of_those_who_did_not_opt_out(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    rows = [
        {"user_id": "ann", "updated_ms": 1, "version": 1, "demographics": '{"age":30,"gender":"f"}'},
        {"user_id": "ann", "updated_ms": 2, "version": 2, "demographics": '{"age":40,"gender":"f"}'},
        {
            "user_id": "bob",
            "updated_ms": 1,
            "version": 1,
            "demographics": '{"age":30}',
            "personalise": "false",
        },
        {"user_id": "cid", "updated_ms": 1, "version": 1},
    ]
    table = pa.Table.from_pylist(rows, schema=PROFILE_SCHEMA)
    write_part(profiles_folder(home, "shop") / new_name(), encode_part(table))
    assert demographic_groups(home, "shop", ["cid", "ann", "bob", "dora"]) == [None, "35-44/f", None, None]
    assert demographic_groups(home, "empty", ["ann"]) == [None]


def test_a_new_users_list_follows_the_group_and_then_the_interests() -> None:
    data = histories(([0, 3], 0), ([0, 3], 0), ([0, 1], 0), ([0, 1], 0), ([0], 0))
    popularity = with_groups(fitted(data), data, ["a/f", "a/f", None, None, None], GroupsConfig(min_users=2))
    source = PopularSource("popular", popularity)
    nobody = np.empty(0, np.int32)
    queries = [Query(nobody), Query(nobody, context={"demographic": "a/f"})]
    _, scores = source.propose(queries, 4)
    assert scores.shape == (2, 4)
    by_group = source.score(queries, [np.arange(4, dtype=np.int32)] * 2)[1]
    assert by_group[3] > by_group[1]
    assert source.score(queries, [np.arange(4, dtype=np.int32)] * 2)[0][3] <= by_group[3]


def test_the_words_of_a_new_user_are_a_content_vector() -> None:
    from tastemaker.index.faiss_index import FaissIndex

    vectors = np.eye(4, 8, dtype=np.float32)
    source = ContentSource("content", FaissIndex.build(vectors), {}.get)
    nobody = np.empty(0, np.int32)
    queries = [
        Query(nobody, interest_D=vectors[2]),
        Query(nobody),
        Query(np.array([1], np.int32), interest_D=vectors[2]),
    ]
    rows, _ = source.propose(queries, 2)
    assert rows[0, 0] == 2
    assert rows[1].tolist() == [-1, -1]
    assert rows[2, 0] == 2  # item 1 was taken: what was said leads to 2


def test_the_first_event_changes_a_new_users_list() -> None:
    taken = sp.csr_matrix(np.kron(np.eye(2, dtype=np.float32), np.ones((5, 3), np.float32)))  # two tastes
    items = taken.indices.astype(np.int32)
    popularity = fit_popularity(np.append(items, np.array([0, 1, 2], np.int32)), np.arange(len(items) + 3), 6)
    config = RetrievalConfig(sources=(SourceConfig(name="als"), SourceConfig(name="popular", weight=0.1)))
    retrieval = Retrieval(
        {
            "als": AlsSource("als", fit_als(taken, AlsConfig(dim=4))),
            "popular": PopularSource("popular", popularity),
        },
        config,
    )
    nobody, once = Query(np.empty(0, np.int32), k=3), Query(np.array([4], np.int32), k=3)
    before, after = retrieval([nobody, once])
    assert before.item_index[:3].tolist() == [0, 1, 2]  # what is popular
    assert set(after.item_index[:2].tolist()) == {3, 5}  # what goes with item 4
