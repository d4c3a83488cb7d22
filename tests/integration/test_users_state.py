"""Profiles, merging and erasing users, on a real Valkey."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from profiles_state import clicks, drain, has_past, put, read, using, with_home
from streams import NOW_MS, make_consumer, send

from tastemaker.erasure import Eraser
from tastemaker.errors import StateError
from tastemaker.events.erasure import request_erasure
from tastemaker.events.history import read_history
from tastemaker.features.rebuild import rebuild
from tastemaker.state.connection import connect_async
from tastemaker.users import archive
from tastemaker.users.archive import archive_profiles, opted_out, profile_files, read_profiles
from tastemaker.users.merged import Merge, note, read_merges
from tastemaker.users.merges import admit_merges, set_alias
from tastemaker.users.rows import parse_users
from tastemaker_services.gateway.profiles import Profiles

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    return with_home(state, tmp_path / "home")


def test_a_row_changes_what_it_names_and_the_version_with_it(state: Any) -> None:
    put(state, {"user_id": "ü", "demographics": {"age": 30}, "location": {"lat": 1.5, "lon": -2}})
    first = read(state, "ü")
    put(state, {"user_id": "ü", "location": None, "onboarding": {"liked": ["i1"], "text": "jazz"}})
    second = read(state, "ü")
    assert first.profile.location is not None
    assert (second.profile.location, second.profile.demographics.age) == (None, 30)
    assert second.profile.onboarding.liked == ("i1",)
    assert len({first.version, second.version, read(state, "nobody").version}) == 3
    found = using(state, lambda profiles: profiles.get("ü"))
    assert found["profile"]["onboarding"] == {"liked": ["i1"], "text": "jazz"}
    assert using(state, lambda profiles: profiles.get("nobody")) is None


def test_a_lost_server_gets_profiles_consent_and_aliases_back_from_the_disk(state: Any) -> None:
    put(state, {"user_id": "ann", "demographics": {"age": 30}}, {"user_id": "bob", "personalise": False})
    note(state.home, state.keys.catalogue, merge := Merge("anon", "ann", NOW_MS))
    set_alias(state.client, state.keys, merge)
    send(state, *clicks("anon", "i1"), *clicks("bob", "i1"))
    drain(state)
    assert archive_profiles(state.client, state.keys, state.home) == 2
    assert archive_profiles(state.client, state.keys, state.home) == 0
    assert opted_out(state.home, state.keys.catalogue) == {"bob"}
    for key in state.client.scan_iter(match=f"tm:{{{state.keys.catalogue}*", count=1000):
        state.client.delete(key)
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert read(state, "ann").profile.demographics.age == 30
    assert read(state, "anon").history == ["i1"]
    assert not read(state, "bob").profile.personalise
    assert not has_past(state, "bob")
    send(state, *clicks("anon", "i2"), *clicks("bob", "i2"))
    drain(state)
    assert read_history(state.client, state.keys, "ann") == ["i1", "i2"]
    assert not has_past(state, "bob")


def test_the_archive_holds_the_newest_of_each_and_few_files(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    for age in range(5):
        put(state, {"user_id": "ann", "demographics": {"age": age}}, {"user_id": f"u{age}"})
        archive_profiles(state.client, state.keys, state.home)
        assert len(profile_files(state.home, state.keys.catalogue)) <= 3
    table = read_profiles(state.home, state.keys.catalogue)
    found = dict(zip(table["user_id"].to_pylist(), table["demographics"].to_pylist(), strict=True))
    assert found == {"ann": '{"age":4}', **{f"u{age}": None for age in range(5)}}


def test_a_profile_that_changes_while_it_is_written_is_written_again(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state, {"user_id": "ann", "demographics": {"age": 1}})
    kept = archive._write

    def write(*args: Any) -> None:
        kept(*args)
        monkeypatch.undo()
        put(state, {"user_id": "ann", "demographics": {"age": 2}})

    monkeypatch.setattr(archive, "_write", write)
    assert [archive_profiles(state.client, state.keys, state.home) for _ in range(3)] == [1, 1, 0]
    assert read_profiles(state.home, state.keys.catalogue)["demographics"].to_pylist() == ['{"age":2}']


def test_a_merged_user_is_read_and_put_as_the_one_it_is(state: Any) -> None:
    send(state, *clicks("anon", "i1"), *clicks("ann", "i2"))
    drain(state)
    assert using(state, lambda profiles: profiles.merge("anon", "ann")) == {
        "into_user_id": "ann", "state": "noted"
    }  # fmt: skip
    admit_merges(state.client, state.keys, state.home, NOW_MS)
    drain(state)
    assert sorted(read(state, "anon").history) == ["i1", "i2"]
    assert read(state, "anon").version == read(state, "ann").version
    put(state, {"user_id": "anon", "personalise": False})
    assert not read(state, "ann").profile.personalise
    assert using(state, lambda profiles: profiles.merge("ann", "anon"))["state"] == "one already"
    drain(state)
    assert not has_past(state, "ann")
    assert using(state, lambda profiles: profiles.get("anon"))["merged_into"] == "ann"


@pytest.mark.parametrize("named", ["anon", "ann"])
def test_erasing_any_id_of_a_user_erases_all_of_them(state: Any, named: str) -> None:
    catalogue = state.keys.catalogue
    put(
        state, {"user_id": "ann", "demographics": {"age": 30}}, {"user_id": "bob", "demographics": {"age": 4}}
    )
    send(state, *clicks("anon", "i1"), *clicks("ann", "i2"), *clicks("bob", "i3"))
    drain(state)
    using(state, lambda profiles: profiles.merge("anon", "ann"))
    admit_merges(state.client, state.keys, state.home, NOW_MS)
    archive_profiles(state.client, state.keys, state.home)
    send(state, *clicks("anon", "i4"))
    worker = make_consumer(state)
    worker.step()  # leaves something on its way
    worker.close()
    using(state, lambda profiles: profiles.merge("x", "ann"))  # not admitted yet
    request_erasure(state.client, state.keys, named)
    (receipt,) = Eraser(state.settings, state.home, state.client, state.client, state.keys).erase_pending()
    assert receipt.removed["merged users"] == 1
    left = [key for key in state.client.scan_iter(match=f"tm:{{{catalogue}*", count=1000)
            if "ann" in key or "anon" in key]  # fmt: skip
    assert left == []
    for p in range(state.keys.partitions):
        for user in ("ann", "anon"):
            assert not state.client.hexists(state.keys.aliases(p), user)
        assert not state.client.xlen(state.keys.outbox(p))
        assert not state.client.llen(state.keys.inbox(p))
    assert state.client.xlen(state.keys.merge_requests) == 0
    assert not read_merges(state.home, catalogue)
    for file in (state.home / "events" / catalogue).rglob("*.parquet"):
        assert not {"ann", "anon"} & set(pq.read_table(file)["user_id"].to_pylist())
    assert read_profiles(state.home, catalogue)["user_id"].to_pylist() == ["bob"]
    send(state, *clicks("anon", "i5", timestamp_ms=NOW_MS - 1))  # late
    drain(state)
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert not has_past(state, "ann")
    assert not has_past(state, "anon")
    assert read_history(state.client, state.keys, "bob") == ["i3"]


def test_without_a_server_nobody_is_told_that_it_is_kept() -> None:
    async def run() -> None:
        client = connect_async("redis://127.0.0.1:1")
        profiles = Profiles(client, client, client, keys)
        users, _ = parse_users([{"user_id": "a"}])
        for action in (profiles.put(users), profiles.merge("a", "b"), profiles.get("a")):
            with pytest.raises(StateError):
                await action

    from tastemaker.state.keys import Keys

    keys = Keys("nowhere", 4)
    asyncio.run(run())


def test_a_damaged_record_does_not_hold_up_what_joins_others(state: Any) -> None:
    send(state, *clicks("anon", "i1"), *clicks("anon2", "i2"), *clicks("ann", "i3"))
    drain(state)
    state.client.set(state.keys.user("anon"), b"\x00damaged")
    for user in ("anon", "anon2"):
        using(state, lambda profiles, user=user: profiles.merge(user, "ann" if user == "anon" else "bob"))
    admit_merges(state.client, state.keys, state.home, NOW_MS)
    drain(state)
    assert read_history(state.client, state.keys, "bob") == ["i2"]
    letters = state.client.xrange(state.keys.dead_letters(state.keys.partition("ann")))
    assert [fields["stream"] for _, fields in letters] == ["inbox"]
    assert read_history(state.client, state.keys, "ann") == ["i3"]
