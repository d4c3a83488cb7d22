"""Two users become one: every event counts once for the one, whatever is killed in between, on a real Valkey."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from streams import NOW_MS, event, make_consumer, send, user_state

from tastemaker.errors import DataError, StateError
from tastemaker.events.history import read_history
from tastemaker.events.schema import Event
from tastemaker.features import merging
from tastemaker.features.rebuild import rebuild
from tastemaker.features.user_state import UserState, after
from tastemaker.home import Home
from tastemaker.state.connection import connect_async
from tastemaker.users import merges
from tastemaker.users.merged import merges_file, read_merges
from tastemaker.users.merges import admit_merges, request_merge_async

MINUTE_MS = 60_000


class KilledError(StateError):
    """The process is gone, as far as a test is concerned."""


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    home = Home.make(tmp_path / "home")
    longer = state.settings.state.model_copy(update={"history_length": 50})
    settings = state.settings.model_copy(update={"home": home.root, "state": longer})
    return dataclasses.replace(state, home=home, settings=settings)


def ask(state: Any, from_user: str, into_user: str) -> None:
    async def run() -> None:
        client = connect_async(state.url)
        try:
            await request_merge_async(client, state.keys, from_user, into_user)
        finally:
            await client.aclose()

    asyncio.run(run())


def admit(state: Any) -> list[merges.Merge]:
    return admit_merges(state.client, state.keys, state.home, NOW_MS)


def drain(state: Any) -> None:
    worker = make_consumer(state, lease_seconds=0.5)  # one that is killed is followed soon
    assert worker.drain(20)
    worker.close()


def some_events(user: str, first: int, number: int = 6) -> list[Event]:
    kinds = ("click", "view", "like", "impression", "dislike", "purchase")
    return [
        event(user, f"i{n}", kinds[n % 6], timestamp_ms=NOW_MS - (40 - n) * MINUTE_MS)
        for n in range(first, first + number)
    ]


def record_of(events: list[Event]) -> UserState:
    (found,) = after([UserState()], [events], lambda _: "")
    return found


def plain(found: UserState) -> list[Any]:
    sums = [round(value, 9) for value in found.counters.value_NKW.ravel().tolist()]
    shown = {item: (round(one.times, 9), one.last_ms) for item, one in found.shown.items()}
    return [sums, found.last_ms, found.taken, found.declined, dict(sorted(found.opinions.items())), shown]


def assert_one(state: Any, into: str, events: list[Event], *gone: str) -> None:
    """The record and history of `into` are those of all the events, and nothing is kept of others."""
    assert plain(user_state(state, into)) == plain(record_of(events))
    taken = [e.item_id for e in sorted(events, key=lambda e: e.timestamp_ms)
             if e.kind not in ("impression", "dislike")]  # fmt: skip
    assert read_history(state.client, state.keys, into) == list(dict.fromkeys(reversed(taken)))[::-1]
    for user in gone:
        names = (state.keys.user(user), state.keys.history(user), state.keys.profile(user))
        assert not state.client.exists(*names)


def apart(state: Any) -> tuple[str, str]:
    """An anonymous user and a known one whose partitions differ."""
    known = next(f"k{n}" for n in range(99) if state.keys.partition(f"k{n}") != state.keys.partition("anon"))
    return "anon", known


def test_the_past_and_what_comes_later_count_for_the_known_user(state: Any) -> None:
    anon, known = apart(state)
    before = [*some_events(anon, 0), *some_events(known, 6)]
    send(state, *before)
    drain(state)
    ask(state, anon, known)
    assert [(one.from_user, one.into_user) for one in admit(state)] == [(anon, known)]
    drain(state)
    assert_one(state, known, before, anon)
    later = [*some_events(anon, 12), *some_events(known, 18)]
    send(state, *later)
    drain(state)
    assert_one(state, known, before + later, anon)


def test_a_rebuild_makes_of_them_what_the_merge_made(state: Any) -> None:
    anon, known = apart(state)
    every = [e for n in range(0, 24, 6) for e in some_events((anon, known)[n // 6 % 2], n)]
    for n in range(0, 24, 6):  # apart, so that the log received them in the order in which they happened
        send(state, *every[n : n + 6])
        drain(state)
        if n == 6:
            ask(state, anon, known)
            admit(state)
    merged = plain(user_state(state, known)), read_history(state.client, state.keys, known)
    state.client.delete(state.keys.aliases(state.keys.partition(anon)))
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert (plain(user_state(state, known)), read_history(state.client, state.keys, known)) == merged
    assert_one(state, known, every, anon)
    send(state, *some_events(anon, 24))  # the alias was restored
    drain(state)
    assert_one(state, known, every + some_events(anon, 24), anon)


STEPS: list[tuple[Any, str]] = [
    (merges, "note"),
    (merges, "set_alias"),
    (merging, "_move"),
    (merging, "_forward"),
    (merging, "_receive"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("where", "step"), STEPS)
def test_killed_at_any_step_everything_counts_once(
    state: Any, monkeypatch: pytest.MonkeyPatch, where: Any, step: str, when: str
) -> None:
    anon, known = apart(state)
    events = [*some_events(anon, 0), *some_events(known, 6)]
    send(state, *events)
    drain(state)
    ask(state, anon, known)
    kills = killing(monkeypatch, where, step, when)
    late = some_events(anon, 12)
    for sent in ([], late):  # in the middle of it, events of the merged id come in
        send(state, *sent)
        attempt(lambda: admit(state))
        attempt(lambda: drain(state))
    assert kills
    monkeypatch.undo()
    admit(state)
    drain(state)
    assert_one(state, known, events + late, anon)
    assert list(read_merges(state.home, state.keys.catalogue).merges) == [anon]


def killing(monkeypatch: pytest.MonkeyPatch, where: Any, step: str, when: str) -> list[str]:
    """Has a step fail at its first call, before it did anything or after; gives where calls that failed are noted."""
    kept, kills = getattr(where, step), []

    def fail(*args: Any) -> Any:
        if kills:
            return kept(*args)
        kills.append(step)
        if when == "after":
            kept(*args)
        raise KilledError("killed")

    monkeypatch.setattr(where, step, fail)
    return kills


def attempt(action: Callable[[], object]) -> None:
    with suppress(KilledError):
        action()


def test_a_commit_whose_answer_is_lost_is_not_made_twice(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    anon, known = apart(state)
    events = [*some_events(anon, 0), *some_events(known, 6)]
    send(state, *events)
    drain(state)
    ask(state, anon, known)
    admit(state)
    for _ in range(4):  # out of A, into the outbox, into the inbox, into B
        worker = make_consumer(state)
        kept = worker._positions.commit

        def commit(*args: Any, kept: Any = kept) -> None:
            kept(*args)
            raise KilledError("killed")

        monkeypatch.setattr(worker._positions, "commit", commit)
        attempt(worker.step)
        worker.close()
    drain(state)
    assert_one(state, known, events, anon)


def test_entries_that_are_forwarded_twice_join_once(state: Any) -> None:
    anon, known = apart(state)
    send(state, *(events := some_events(anon, 0)))
    drain(state)
    ask(state, anon, known)
    admit(state)
    worker = make_consumer(state)
    fences = worker._leases.hold()
    worker._positions.follow(fences)
    commands = merging.join(state.client, state.keys, fences, 50)
    worker._positions.commit(commands, {p: worker._positions.progress[p] for p in commands})
    outbox = state.keys.outbox(state.keys.partition(anon))
    entries = state.client.execute_command("XRANGE", outbox, "-", "+", NEVER_DECODE=True)
    assert merging.forward(state.client, state.keys, fences) == len(entries) == 1
    for entry_id, fields in entries:  # the one who forwarded it was killed before it left the outbox
        state.client.delete(outbox)
        state.client.execute_command("XADD", outbox, entry_id, *(w for pair in fields.items() for w in pair))
    assert merging.forward(state.client, state.keys, fences) == 1
    assert state.client.llen(state.keys.inbox(state.keys.partition(known))) == 1
    worker.close()
    drain(state)
    assert_one(state, known, events, anon)


def test_two_consumers_share_the_work_and_one_that_outlived_its_lease_moves_nothing(state: Any) -> None:
    anon, known = apart(state)
    events = [*some_events(anon, 0), *some_events(known, 6)]
    old = make_consumer(state)
    fences = old._leases.hold()
    old._positions.follow(fences)
    send(state, *events)
    for p in fences:
        state.client.delete(state.keys.partition_lease(p))
    ask(state, anon, known)
    admit(state)
    moved = merging.join(state.client, state.keys, fences, 50)
    drain(state)
    with pytest.raises(StateError, match="lease"):
        old._positions.commit(moved, {p: old._positions.progress[p] for p in moved})
    assert_one(state, known, events, anon)


def test_chains_circles_and_repeats_end_in_one_user(state: Any) -> None:
    users = ["a", "b", "c"]
    events = [e for n, user in enumerate(users) for e in some_events(user, 6 * n)]
    send(state, *events)
    drain(state)
    for pair in (("a", "b"), ("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "c"), ("a", "x")):
        ask(state, *pair)
    assert [(one.from_user, one.into_user) for one in admit(state)] == [("a", "b"), ("b", "c")]
    assert admit(state) == []
    drain(state)
    assert_one(state, "c", events, "a", "b")
    send(state, *(late := some_events("a", 18)))
    drain(state)
    assert_one(state, "c", events + late, "a", "b")
    assert read_merges(state.home, state.keys.catalogue).family("b") == ["a", "b", "c"]


def test_a_line_cut_off_by_a_crash_is_no_merge_and_spoils_none(state: Any) -> None:
    merges.note(state.home, state.keys.catalogue, merges.Merge("a", "b", 1))
    file = merges_file(state.home, state.keys.catalogue)
    with file.open("ab") as lines:
        lines.write(b'{"from": "x", "in')
    assert list(read_merges(state.home, state.keys.catalogue).merges) == ["a"]
    merges.note(state.home, state.keys.catalogue, merges.Merge("c", "d", 2))
    assert list(read_merges(state.home, state.keys.catalogue).merges) == ["a", "c"]
    assert list(read_merges(state.home, state.keys.catalogue, until_ms=1).merges) == ["a"]
    file.write_text("7\n")
    with pytest.raises(DataError, match="is no merge"):
        read_merges(state.home, state.keys.catalogue)


def test_the_profile_joins_part_by_part_where_the_known_user_has_none(state: Any) -> None:
    anon, known = apart(state)
    state.client.hset(
        state.keys.profile(anon), mapping={"location": '{"lat":1,"lon":2}', "demographics": "{}"}
    )
    state.client.hset(state.keys.profile(known), mapping={"demographics": '{"gender":"f"}'})
    ask(state, anon, known)
    admit(state)
    drain(state)
    kept = state.client.hgetall(state.keys.profile(known))
    assert (kept["location"], kept["demographics"]) == ('{"lat":1,"lon":2}', '{"gender":"f"}')
    assert not state.client.exists(state.keys.profile(anon))
