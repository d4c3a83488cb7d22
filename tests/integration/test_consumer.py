"""The stream consumer against a real Valkey and real Parquet."""

import itertools
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from histories import put_histories

from tastemaker import telemetry
from tastemaker.errors import DataError, StateError
from tastemaker.events import archive, consumer
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.archiver import Archiver
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.drained import await_drained, is_drained
from tastemaker.events.history import read_history
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, append_decision
from tastemaker.experiments.definition import Experiment, Thompson, Variant
from tastemaker.experiments.posterior import read_posterior
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.experiments.store import ExperimentStore
from tastemaker.features.stream import StreamFeatures

_ids = itertools.count()
NOW_MS = int(time.time() * 1000)


def make_consumer(state: Any) -> StreamConsumer:
    rewards = RewardJoiner(state.client, state.keys)
    effects = StreamFeatures(state.client, state.keys, state.home)
    return StreamConsumer(state.client, state.keys, state.home, state.settings, rewards, effects)


def event(user: str, item: str, kind: str = "click", **fields: Any) -> Event:
    defaults = {"event_id": f"e{next(_ids)}", "timestamp_ms": NOW_MS, "origin": "live"}
    return Event(user_id=user, item_id=item, kind=kind, **defaults | fields)


def send(state: Any, *events: Event) -> None:
    append(state.client, state.keys, events, state.settings.state, NOW_MS, durable=False)


def decide(state: Any, request_id: str, variant: str, user: str = "u", **fields: Any) -> None:
    defaults = {"experiment": "exp", "origin": "simulator", "timestamp_ms": NOW_MS, "bundle": "b1"}
    decision = Decision(
        decision_id=f"d{next(_ids)}", request_id=request_id, catalogue=state.keys.catalogue, unit=user,
        user_id=user, variant=variant, propensity=0.5, **defaults | fields,
    )  # fmt: skip
    append_decision(state.client, state.keys, decision, state.settings.state)


def start_bandit(state: Any, window_seconds: float) -> None:
    experiment = Experiment(
        name="exp",
        hypothesis="b is better",
        salt="s",
        origin="simulator",
        variants=(Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
        allocation=Thompson(),
        attribution_window_seconds=window_seconds,
    )
    ExperimentStore(state.client, state.keys).create(experiment)


def posterior(state: Any) -> tuple[dict[str, float], dict[str, float]]:
    found = read_posterior(state.client, state.keys, "exp")
    return dict(found.successes), dict(found.failures)


def test_histories_keep_the_newest_items_once_and_only_of_live_users_choices(state: Any) -> None:
    send(
        state,
        *(event("ann", item) for item in "abcdefb"),
        event("ann", "seen", kind="impression"),
        event("ann", "bad", kind="dislike"),
        event("bot", "x", origin="simulator"),
    )
    make_consumer(state).step()
    # Length 5: a and the first b fall out, b moves to the end.
    assert read_history(state.client, state.keys, "ann") == ["c", "d", "e", "f", "b"]
    assert read_history(state.client, state.keys, "bot") == []


def test_loaded_histories_are_continued_by_events(state: Any) -> None:
    put_histories(state.client, state.keys, {"ann": ["q", "p"]})
    send(state, event("ann", "r"))
    make_consumer(state).step()
    assert read_history(state.client, state.keys, "ann") == ["q", "p", "r"]


def test_every_event_comes_back_from_parquet_and_streams_are_trimmed(state: Any) -> None:
    sent = [
        event("ann", "ünï", value=2.5, request_id="r", position=3, context={"device": "tv"}),
        event("bob", "x", kind="impression", timestamp_ms=NOW_MS - 86_400_000),
        event("bob", "y", kind="rating", value=4.0, origin="replay"),
    ]
    send(state, *sent)
    assert make_consumer(state).drain(10)
    folder = state.home / "events" / state.keys.catalogue
    today, yesterday = (datetime.fromtimestamp(NOW_MS / 1000 - age, UTC).date() for age in (0, 86_400))
    assert sorted(p.name for p in folder.glob("day=*")) == [f"day={yesterday}", f"day={today}"]
    rows = {row["event_id"]: row for row in read_days(folder, EVENT_SCHEMA, "event_id").to_pylist()}
    assert len(rows) == 3
    for one in sent:
        row = rows[one.event_id]
        assert row.pop("received_ms") >= NOW_MS
        row["context"] = dict(row["context"]) if row["context"] is not None else None
        assert {name: row[name] for name in Event.model_fields} == one.model_dump()
    assert is_drained(state.client, state.keys)
    assert state.client.xlen(state.keys.events(state.keys.partition("ann"))) == 0


def test_a_click_in_the_window_is_a_success_and_silence_a_failure_only_once_it_closed(state: Any) -> None:
    start_bandit(state, window_seconds=0.4)
    worker = make_consumer(state)
    decide(state, "r1", "a")
    decide(state, "r2", "b")
    decide(state, "r3", "b", user="other")
    send(state, event("u", "i", request_id="r2", origin="simulator"))
    send(state, event("u", "j", request_id="r2", origin="simulator"))  # the same request: still one reward
    send(state, event("u", "i", request_id="r1", origin="live"))  # another origin
    send(state, event("other", "i", kind="impression", request_id="r3", origin="simulator"))
    worker.step()
    assert posterior(state) == ({}, {})
    assert worker.drain(10)
    assert posterior(state) == ({"b": 1}, {"a": 1, "b": 1})
    assert read_posterior(state.client, state.keys, "exp").version == 3
    shares = [telemetry.PROPENSITY.labels(state.keys.catalogue, "exp", v)._value.get() for v in "ab"]
    # Beta(1, 2) against Beta(2, 2): P(best) = 3/10 and 7/10; p = .05 + .9 w.
    assert shares == pytest.approx([0.05 + 0.9 * 0.3, 0.05 + 0.9 * 0.7], abs=1e-9)


def test_a_click_after_the_window_earns_nothing(state: Any) -> None:
    start_bandit(state, window_seconds=0.05)
    worker = make_consumer(state)
    decide(state, "r1", "a")
    assert worker.drain(10)
    send(state, event("u", "i", request_id="r1", origin="simulator"))
    worker.step()
    assert posterior(state) == ({}, {"a": 1})


def test_a_click_that_overtakes_its_decision_is_joined(state: Any) -> None:
    start_bandit(state, window_seconds=0.05)
    worker = make_consumer(state)
    send(state, event("u", "i", request_id="r1", origin="simulator"))
    worker.step()
    decide(state, "r1", "a")
    worker.step()
    assert worker.drain(10)
    assert posterior(state) == ({"a": 1}, {})


def test_decisions_without_a_known_experiment_earn_nothing_but_are_archived(state: Any) -> None:
    start_bandit(state, window_seconds=0.05)
    decide(state, "r1", "a", experiment=None)
    decide(state, "r2", "a", origin="live")  # not this experiment's origin
    assert make_consumer(state).drain(10)
    assert posterior(state) == ({}, {})
    folder = state.home / "decisions" / state.keys.catalogue
    assert read_days(folder, DECISION_SCHEMA, "decision_id").num_rows == 2


def test_only_one_consumer_works_and_another_takes_over_where_it_stopped(state: Any) -> None:
    first, second = make_consumer(state), make_consumer(state)
    send(state, event("ann", "a"))
    assert first.step().events == 1
    assert second.step().partitions == 0
    first.close()
    send(state, event("ann", "b"))
    step = second.step()
    assert (step.partitions, step.events) == (4, 1)
    assert read_history(state.client, state.keys, "ann") == ["a", "b"]


def test_a_consumer_that_lost_its_lease_unawares_cannot_apply_events_again(state: Any) -> None:
    stale, fresh = make_consumer(state), make_consumer(state)
    stale.step()
    state.client.delete(*map(state.keys.partition_lease, range(4)))
    state.client.delete(state.keys.consumers)  # it stood still for so long that it counts as dead
    send(state, event("ann", "a"))
    fresh.step()
    send(state, event("ann", "b"))
    with pytest.raises(StateError, match="another process has taken"):  # it believes that it still holds them
        stale.step()
    assert read_history(state.client, state.keys, "ann") == ["a"]


def test_a_commit_that_went_through_unseen_is_not_repeated(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_bandit(state, window_seconds=0.01)
    worker = make_consumer(state)
    decide(state, "r1", "a")
    worker.step()
    time.sleep(0.05)

    def roll_up_fails(*_: object) -> None:
        raise redis.ConnectionError("the line broke after the commit")

    with monkeypatch.context() as broken:
        broken.setattr(RewardJoiner, "_write", roll_up_fails)
        with pytest.raises(StateError, match="the line broke"):
            worker.step()
    assert worker.drain(10)
    assert posterior(state) == ({}, {"a": 1})


def test_parquet_written_twice_is_read_once(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make_consumer(state)
    send(state, event("ann", "a"), event("bob", "b"))
    worker.step()
    send(state, event("ann", "c"))

    def crash(*_: object) -> None:
        raise StateError("killed between writing and trimming")

    with monkeypatch.context() as broken:
        broken.setattr(Archiver, "commit", crash)
        with pytest.raises(StateError, match="killed"):
            worker.drain(10)
    assert worker.drain(10)
    folder = state.home / "events" / state.keys.catalogue
    table = read_days(folder, EVENT_SCHEMA, "event_id")
    assert sorted(table["item_id"].to_pylist()) == ["a", "b", "c"]


def test_clicks_of_a_backlog_are_joined_although_their_decisions_are_read_later(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tastemaker.events.batch.BATCH", 2)
    monkeypatch.setattr("tastemaker.events.attribution.EARLY_MS", -1)  # an early click would be lost at once
    start_bandit(state, window_seconds=0.3)
    for i in range(7):
        decide(state, f"r{i}", "a")
    send(state, *(event("u", "i", request_id=f"r{i}", origin="simulator") for i in (4, 5, 6)))
    assert make_consumer(state).drain(10)
    assert posterior(state) == ({"a": 3}, {"a": 4})


def test_another_process_can_wait_until_all_is_applied(state: Any) -> None:
    send(state, event("ann", "a"))
    assert not await_drained(state.client, state.keys, 0.05, poll_seconds=0.01)
    make_consumer(state).drain(10)
    assert await_drained(state.client, state.keys, 0.05, poll_seconds=0.01)


def test_a_day_that_cannot_be_written_keeps_the_stream(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    send(state, event("ann", "a"))
    with monkeypatch.context() as broken:
        broken.setattr(archive, "write_bytes", full)
        with pytest.raises(DataError, match="No space"):
            make_consumer(state).step()
    assert state.client.xlen(state.keys.events(state.keys.partition("ann"))) == 1


def test_projections_that_never_end_take_a_share_of_the_time_and_no_more(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock, worker, took = Clock(), make_consumer(state), 0.05
    monkeypatch.setattr(consumer, "time", clock)
    calls = 0

    def project() -> int:
        nonlocal calls
        calls += 1
        clock.now += took
        return 1000

    monkeypatch.setattr(worker._effects, "project", project)
    worker._archive_at = worker._merge_at = 1e9
    while clock.now < 10:
        worker.step()
        clock.now += 0.005  # the events'
    assert 0.05 < calls * took / clock.now <= 1 / (1 + consumer.PROJECT_REST)
    monkeypatch.setattr(worker._effects, "project", lambda: 0)
    worker._project_at = 0.0
    worker.step()
    assert worker._project_at == clock.now + consumer.PROJECT_SECONDS
    worker.close()
