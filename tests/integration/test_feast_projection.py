"""Rows follow the records that are marked as changed, whatever happens meanwhile, on a real Valkey."""

import logging
from typing import Any

import numpy as np
import pytest
from records import NOW_MS, counters_of, event, state_of, write_items, write_users

from tastemaker.errors import StateError
from tastemaker.features import projection
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.freshness import view_ages
from tastemaker.features.projection import erase_projected, num_pending, project_items, project_users
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import user_rows
from tastemaker.features.views import VIEW, VIEWS, ViewRows
from tastemaker.state.connection import connect

SESSION = VIEW["user_session"]


@pytest.fixture
def rows(state: Any) -> FeastRows:
    return FeastRows(state.client, state.keys.catalogue)


def clicks(user_id: str, count: int) -> UserState:
    return state_of(*(event(user_id, "a", "click", NOW_MS + n) for n in range(count)))


def lengths(rows: FeastRows, *user_ids: str) -> list[Any]:
    return [None if found is None else found["session_length"] for found in rows.read(SESSION, user_ids)]


class Racing(FeastRows):
    """Lets something happen between the reading of records and the writing of their rows."""

    def __init__(self, rows: FeastRows, meanwhile: Any) -> None:
        vars(self).update(vars(rows))
        self._meanwhile = meanwhile

    def write(self, ids: Any, rows: Any) -> None:
        self._meanwhile()
        super().write(ids, rows)


def test_marked_users_are_written_and_their_marks_go(state: Any, rows: FeastRows):
    users = {f"u{n}": clicks(f"u{n}", 1 + n % 3) for n in range(20)}
    write_users(state.client, state.keys, users)
    assert num_pending(state.client, state.keys) == {"user": 20, "item": 0}
    assert project_users(state.client, state.keys, rows) == 20
    assert num_pending(state.client, state.keys) == {"user": 0, "item": 0}
    assert lengths(rows, *users) == [1 + n % 3 for n in range(20)]
    assert project_users(state.client, state.keys, rows) == 0


def test_more_than_one_pass_can_take_are_written_in_several(
    state: Any, rows: FeastRows, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(projection, "MOST_AT_ONCE", 8)
    users = {f"u{n}": clicks(f"u{n}", 1) for n in range(30)}
    write_users(state.client, state.keys, users)
    passes = list(iter(lambda: project_users(state.client, state.keys, rows), 0))
    assert sum(passes) == 30
    assert max(passes) <= 8
    assert lengths(rows, *users) == [1] * 30


def test_a_record_that_changes_meanwhile_is_written_again(state: Any, rows: FeastRows):
    write_users(state.client, state.keys, {"u": clicks("u", 1), "v": clicks("v", 1)})
    racing = Racing(rows, lambda: write_users(state.client, state.keys, {"u": clicks("u", 2)}))
    assert project_users(state.client, state.keys, racing) == 2
    assert lengths(rows, "u", "v") == [1, 1]
    assert num_pending(state.client, state.keys)["user"] == 1
    assert project_users(state.client, state.keys, rows) == 1
    assert lengths(rows, "u", "v") == [2, 1]


def test_of_two_that_project_one_user_the_older_row_does_not_stay(state: Any, rows: FeastRows):
    write_users(state.client, state.keys, {"u": clicks("u", 1)})

    def another() -> None:
        write_users(state.client, state.keys, {"u": clicks("u", 2)})
        assert project_users(state.client, state.keys, rows) == 1
        assert num_pending(state.client, state.keys)["user"] == 0

    project_users(state.client, state.keys, Racing(rows, another))
    assert lengths(rows, "u") == [1]  # the slower one had read the older record
    assert project_users(state.client, state.keys, rows) == 1
    assert lengths(rows, "u") == [2]


def test_a_crash_before_the_marks_are_taken_projects_once_more(state: Any, rows: FeastRows):
    def crash() -> None:
        raise KeyboardInterrupt

    write_users(state.client, state.keys, {"u": clicks("u", 1)})
    with pytest.raises(KeyboardInterrupt):
        project_users(state.client, state.keys, Racing(rows, crash))
    assert num_pending(state.client, state.keys)["user"] == 1
    assert project_users(state.client, state.keys, rows) == 1
    assert lengths(rows, "u") == [1]


def test_a_user_whose_record_is_gone_loses_the_rows(state: Any, rows: FeastRows):
    write_users(state.client, state.keys, {"u": clicks("u", 1), "v": clicks("v", 1)})
    project_users(state.client, state.keys, rows)
    state.client.delete(state.keys.user("u"))
    state.client.sadd(state.keys.changed_users(state.keys.partition("u")), "u")
    assert project_users(state.client, state.keys, rows) == 1
    assert lengths(rows, "u", "v") == [None, 1]
    assert num_pending(state.client, state.keys)["user"] == 0


def test_an_erased_users_rows_go_and_come_back_by_no_pass_that_was_under_way(state: Any, rows: FeastRows):
    write_users(state.client, state.keys, {"u": clicks("u", 1), "v": clicks("v", 1)})

    def erase() -> None:
        state.client.delete(state.keys.user("u"))
        state.client.srem(state.keys.changed_users(state.keys.partition("u")), "u")
        assert erase_projected(state.client, state.keys.catalogue, "u") == 0  # not yet written

    project_users(state.client, state.keys, Racing(rows, erase))
    assert lengths(rows, "u", "v") == [1, 1]
    assert project_users(state.client, state.keys, rows) == 1
    assert lengths(rows, "u", "v") == [None, 1]
    assert erase_projected(state.client, state.keys.catalogue, "v") == 3
    assert lengths(rows, "v") == [None]


def test_a_record_that_cannot_be_read_keeps_its_mark_and_holds_up_nobody(
    state: Any, rows: FeastRows, caplog: pytest.LogCaptureFixture
):
    write_users(state.client, state.keys, {"u": clicks("u", 1)})
    state.client.set(state.keys.user("bad"), b"\x91\x07")
    state.client.sadd(state.keys.changed_users(state.keys.partition("bad")), "bad")
    with caplog.at_level(logging.WARNING):
        assert project_users(state.client, state.keys, rows) == 1
    assert "'bad' cannot be read" in caplog.text
    assert lengths(rows, "u", "bad") == [1, None]
    assert num_pending(state.client, state.keys)["user"] == 1


def test_items_follow_their_totals(state: Any, rows: FeastRows):
    def write(*events: Any) -> None:
        encoded = counters_of(events, ["a", "b"]).encode()
        write_items(state.client, state.keys, dict(zip(["a", "b"], encoded, strict=True)))

    popularity = VIEW["item_popularity"]
    write(event("u", "a", "click"))
    assert project_items(state.client, state.keys, rows) == 2
    assert [row["popularity_all"] for row in rows.read(popularity, ["a", "b"])] == [0.5, 0.0]
    write(event("u", "a", "click"))
    racing = Racing(rows, lambda: write(event("u", "a", "click"), event("u", "a", "purchase")))
    assert project_items(state.client, state.keys, racing) == 2
    assert num_pending(state.client, state.keys)["item"] == 1  # of b the totals are the same
    assert project_items(state.client, state.keys, rows) == 1
    assert [row["popularity_all"] for row in rows.read(popularity, ["a"])] == [1.5]
    assert project_items(state.client, state.keys, rows) == 0


def test_an_item_whose_totals_are_gone_loses_its_counts_and_keeps_what_the_catalogue_says(
    state: Any, rows: FeastRows
):
    attributes, popularity = VIEW["item_attributes"], VIEW["item_popularity"]
    said = ViewRows(attributes, np.array([[NOW_MS, np.nan, 2.5]]), {"item_category": ["comedy"]})
    rows.write(["a"], [said])
    write_items(state.client, state.keys, {"a": counters_of([event("u", "a", "click")], ["a"]).encode()[0]})
    project_items(state.client, state.keys, rows)
    state.client.hdel(state.keys.item_totals, "a")
    state.client.sadd(state.keys.changed_totals, "a")
    assert project_items(state.client, state.keys, rows) == 1
    assert rows.read(popularity, ["a"]) == [None]
    assert rows.read(attributes, ["a"])[0]["item_price"] == 2.5
    assert num_pending(state.client, state.keys)["item"] == 0


def test_ages_are_of_the_newest_and_the_oldest_row(state: Any, rows: FeastRows):
    rows.write(["u"], user_rows([state_of(event("u", "a", "click", NOW_MS))]))
    rows.write(["v"], user_rows([state_of(event("v", "a", "click", NOW_MS - 60_000))]))
    ages = {age.view: age[1:] for age in view_ages(rows, (NOW_MS + 1500) * 1_000_000)}
    assert ages["user_counters"] == ages["user_session"] == (2, 1.5, 61.5)
    assert ages["item_counters"] == (0, None, None)
    assert list(ages) == [view.name for view in VIEWS]


def test_without_a_server_nothing_is_lost_and_the_error_says_so(state: Any):
    client = connect("redis://127.0.0.1:1")
    with pytest.raises(StateError, match="cannot read marks of users"):
        project_users(client, state.keys, FeastRows(client, "c"))
    with pytest.raises(StateError, match="cannot write Feast's rows"):
        FeastRows(client, "c").write(["u"], user_rows([clicks("u", 1)]))
