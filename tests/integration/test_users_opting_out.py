"""Who opts out is forgotten and stays out, whatever is under way; on a real Valkey."""

import time
from pathlib import Path
from typing import Any

import pytest
from profiles_state import clicks, drain, has_past, put, read, using, weight, with_home
from streams import NOW_MS, make_consumer, records, send, user_state

from tastemaker.events.history import read_history
from tastemaker.features.rebuild import rebuild
from tastemaker.state.lists import StoredList, write_lists
from tastemaker.users.merges import admit_merges

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    return with_home(state, tmp_path / "home")


def test_a_profile_that_cannot_be_read_makes_nothing_personal(state: Any) -> None:
    send(state, *clicks("ann", "i1"))
    drain(state)
    state.client.hset(state.keys.profile("ann"), "schema", "99")
    user = read(state, "ann")
    assert (user.profile.personalise, user.history, user.record) == (False, [], b"")


def test_opting_out_holds_at_once_and_what_was_kept_is_deleted(state: Any) -> None:
    send(state, *clicks("ann", "i1"), *clicks("bob", "i1"))
    drain(state)
    write_lists(state.client, state.keys, [("ann", StoredList("b", 1, ["i1"]))], 60)
    put(state, {"user_id": "ann", "personalise": False})
    user = read(state, "ann")  # no consumer has run
    assert (user.history, user.record, user.profile.personalise) == ([], b"", False)
    assert not state.client.exists(state.keys.stored_list("ann"))
    drain(state)
    assert not has_past(state, "ann")
    assert has_past(state, "bob")
    before = weight(state, "ann", "i2") if records(state, state.keys.item_counters(
        state.keys.partition("ann")), ["i2"])[0] else 0.0  # fmt: skip
    send(state, *clicks("ann", "i2"))
    drain(state)
    assert not has_past(state, "ann")
    assert weight(state, "ann", "i2") > before  # it counts for the item


def test_an_opting_out_in_the_middle_of_a_step_is_not_undone_by_its_commit(state: Any) -> None:
    worker = make_consumer(state)
    kept = worker._effects.apply

    def apply(*args: Any) -> Any:
        found = kept(*args)
        put(state, {"user_id": "ann", "personalise": False})
        return found

    worker._effects.apply = apply  # type: ignore[method-assign]
    send(state, *clicks("ann", "i1"))
    assert worker.drain(20)
    assert not has_past(state, "ann")
    worker.close()


def test_who_opts_in_again_starts_anew_also_in_a_rebuild(state: Any) -> None:
    send(state, *clicks("ann", "i1", timestamp_ms=NOW_MS - 9000))
    drain(state)
    put(state, {"user_id": "ann", "personalise": False})
    drain(state)
    send(state, *clicks("ann", "i2", timestamp_ms=NOW_MS - 5000))
    drain(state)
    put(state, {"user_id": "ann", "personalise": True})
    later = int(time.time() * 1000) + 2
    send(state, *clicks("ann", "i3", timestamp_ms=later), *clicks("ann", "late", timestamp_ms=NOW_MS - 1))
    drain(state)
    assert read_history(state.client, state.keys, "ann") == ["i3"]
    record = user_state(state, "ann").encode()
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert read_history(state.client, state.keys, "ann") == ["i3"]
    assert user_state(state, "ann").encode() == record
    for item in ("i1", "i2", "late"):
        assert weight(state, "ann", item) > 0


@pytest.mark.parametrize("out", ["anon", "ann"])
def test_what_one_of_two_opted_out_of_joins_nobody(state: Any, out: str) -> None:
    put(state, {"user_id": out, "personalise": False})
    send(state, *clicks("anon", "i1"), *clicks("ann", "i2"))
    drain(state)
    using(state, lambda profiles: profiles.merge("anon", "ann"))
    admit_merges(state.client, state.keys, state.home, NOW_MS)
    drain(state)
    send(state, *clicks("anon", "i3"), *clicks("ann", "i4"))
    drain(state)
    for _ in range(2):
        assert not has_past(state, "anon")
        assert not has_past(state, "ann")  # also where the anonymous one said so, and the known one nothing
        assert not read(state, "anon").profile.personalise
        rebuild(state.client, state.keys, state.home, state.settings.state)


def test_what_the_anonymous_one_opted_out_of_does_not_come_back_with_a_known_user_who_is_in(
    state: Any,
) -> None:
    put(state, {"user_id": "anon", "personalise": False}, {"user_id": "ann", "personalise": True})
    send(state, *clicks("anon", "i1", timestamp_ms=NOW_MS - 9), *clicks("ann", "i2", timestamp_ms=NOW_MS - 8))
    drain(state)
    using(state, lambda profiles: profiles.merge("anon", "ann"))
    admit_merges(state.client, state.keys, state.home, NOW_MS)
    send(state, *clicks("anon", "i3", timestamp_ms=NOW_MS + 1))
    drain(state)
    for _ in range(2):
        assert read_history(state.client, state.keys, "ann") == ["i2", "i3"]
        rebuild(state.client, state.keys, state.home, state.settings.state)
