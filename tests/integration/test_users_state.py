"""Profiles, opting out and erasing merged users, on a real Valkey."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from streams import NOW_MS, event, make_consumer, records, send, user_state

from tastemaker.erasure import Eraser
from tastemaker.errors import StateError
from tastemaker.events.erasure import request_erasure
from tastemaker.events.history import read_history
from tastemaker.features.counters import Counters
from tastemaker.features.rebuild import rebuild
from tastemaker.home import Home
from tastemaker.state.connection import connect_async
from tastemaker.state.lists import StoredList, write_lists
from tastemaker.users import archive
from tastemaker.users.archive import archive_profiles, opted_out, profile_files, read_profiles
from tastemaker.users.merged import Merge, note, read_merges
from tastemaker.users.merges import admit_merges, set_alias
from tastemaker.users.rows import parse_users
from tastemaker_services.gateway.profiles import Profiles
from tastemaker_services.gateway.users import User, read_user

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    home = Home.make(tmp_path / "home")
    settings = state.settings.model_copy(update={"home": home.root})
    return dataclasses.replace(state, home=home, settings=settings)


def using(state: Any, action: Callable[[Profiles], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client, raw = connect_async(state.url), connect_async(state.url, text=False)
        try:
            return await action(Profiles(client, raw, client, state.keys))
        finally:
            await client.aclose()
            await raw.aclose()

    return asyncio.run(run())


def put(state: Any, *rows: dict[str, Any]) -> None:
    users, rejected = parse_users(rows)
    assert not rejected
    using(state, lambda profiles: profiles.put(users))


def read(state: Any, user_id: str) -> User:
    async def run() -> User:
        raw = connect_async(state.url, text=False)
        try:
            return await read_user(raw, state.keys, user_id)
        finally:
            await raw.aclose()

    return asyncio.run(run())


def drain(state: Any) -> None:
    worker = make_consumer(state)
    assert worker.drain(20)
    worker.close()


def clicks(user: str, *items: str, **fields: Any) -> list[Any]:
    return [event(user, item, "click", **fields) for item in items]


def weight(state: Any, user: str, item: str) -> float:
    found = records(state, state.keys.item_counters(state.keys.partition(user)), [item])
    return float(Counters.decode(found).value_NKW[0].max())


def has_past(state: Any, user: str) -> bool:
    return bool(state.client.exists(state.keys.user(user), state.keys.history(user)))


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
