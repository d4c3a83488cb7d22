"""What trended at a moment, made of the log, beside what was read then; and answers that read it, made again."""

import dataclasses
import random
import time
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from replayed_world import ReplayedWorld, consume, described
from streams import DAY_MS, NOW_MS, event, send
from tagged import items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config_serving import TrendingSettings
from tastemaker.data.schema import imported_folder
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.schema import Event
from tastemaker.features.categories import Categories
from tastemaker.features.known_events import state_events
from tastemaker.features.known_trending import known_trending
from tastemaker.features.trending import read_trending
from tastemaker.stages.live import LiveStages
from tastemaker.types import EVENT_KINDS
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.replicas.live_trending import LiveTrending


def some_events(count: int, seed: int) -> list[Event]:
    rng = random.Random(seed)
    contexts = [None, {"country": "DE"}, {"country": "fr"}, {"country": "Utopia"}, {"device": "tv"}]
    return [
        event(
            f"u{rng.randrange(12)}", f"i{rng.randrange(9)}", rng.choice(EVENT_KINDS), value=rng.uniform(1, 5),
            timestamp_ms=NOW_MS - rng.randrange(9 * DAY_MS), context=rng.choice(contexts),
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("window", ["7d", "1d"])
def test_the_log_says_what_the_rankings_said(state: Any, seed: int, window: str) -> None:
    settings = state.settings.state.model_copy(update={"trend_window": window})
    state = dataclasses.replace(state, settings=state.settings.model_copy(update={"state": settings}))
    send(state, *some_events(150, seed))
    consume(state)
    now_ms = time.time_ns() // 1_000_000 + 1
    expected = read_trending(state.client, state.keys, now_ms, 2.0)
    archived = read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id")
    events = state_events(state.home, state.keys.catalogue, archived, state.settings.state.late_days)
    categories = Categories(state.home, state.client, state.keys)
    categories.refresh()
    found = known_trending(events, now_ms, categories, window, 2.0)
    for country in ("", "DE", "FR", "GB"):
        assert dict(found.of(country)) == pytest.approx(dict(expected.of(country)), rel=1e-6)
        assert [item for item, _ in found.of(country)] == [item for item, _ in expected.of(country)]
    nothing = known_trending(events, 0, categories, window, 2.0)
    assert nothing.of("DE") == []


class TrendingWorld(ReplayedWorld):
    """Its retriever and its gateway read what trends now, each anew before an answer."""

    def __init__(self, state: Any, bundle: Bundle) -> None:
        super().__init__(state, bundle)
        trending = TrendingSettings(least_weight=1.0, country_prior=2.0, refresh_seconds=5.0)
        self.settings = self.settings.model_copy(update={"trending": trending})
        self.trends = LiveTrending(state.client, state.keys, trending)
        self.live = LiveStages(bundle, store_of=self._store, trending=self.trends.current)
        self.add("champion", bundle, self.live)
        self.pins = {"champion": Pin(1, BundleFace.of(bundle, self.trends.current))}

    def answer(self, user_id: str = "ann", **fields: Any) -> dict[str, Any]:
        self.trends.refresh()
        return super().answer(user_id, **fields)


@pytest.fixture
def world(state: Any) -> TrendingWorld:
    folder = imported_folder(state.home, state.keys.catalogue)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(items_table(), folder / "items.parquet")
    store = BundleStore.of(state.settings, state.home)
    sources = [{"name": "popular", "quota": 5}, {"name": "trending", "quota": 10, "weight": 5.0}]
    ref = write_bundle(store, retrieval_sources=sources, ranker=False)
    _, manifest = store.get_manifest(ref.uri)
    taken = [("bob", "i3", "purchase", "DE"), ("eve", "i3", "like", "FR"), ("eve", "i8", "click", "DE")]
    send(state, *(event(u, i, kind, context={"country": country}) for u, i, kind, country in taken))
    consume(state)
    return TrendingWorld(state, Bundle.open(store, store.put_manifest(state.keys.catalogue, manifest)))


@pytest.mark.parametrize("asked", [{}, {"user_id": "nobody"}, {"context": {"country": "DE"}}])
@pytest.mark.parametrize("fault", [None, "retrieve"])
def test_an_answer_that_reads_what_trends_is_made_again(
    world: TrendingWorld, asked: dict[str, Any], fault: str | None
) -> None:
    world.graph.faults = {fault: "raises"} if fault else {}
    answer = world.answer(**asked)
    assert ("trending" in answer["degraded"]) == (fault is not None)
    later = [event(f"u{n}", "i9", "purchase", context={"country": "DE"}) for n in range(9)]
    send(world.state, *later)
    consume(world.state)
    found = world.replay(answer["request_id"])
    assert [slot.replayed for slot in found.slots] == [item["item_id"] for item in answer["items"]]
    assert (described(found), found.notes) == ([], [])
    then = world.answer(**asked)
    assert [item["item_id"] for item in then["items"]] != [item["item_id"] for item in answer["items"]]


def received_a_minute_before(state: Any) -> None:
    """What the archive holds, it has held for long."""
    for part in (state.home / "events" / state.keys.catalogue).glob("day=*/part-*.parquet"):
        table = pq.read_table(part)
        place = table.schema.get_field_index("received_ms")
        earlier = pc.subtract(table["received_ms"], 60_000)
        pq.write_table(table.set_column(place, table.schema.field(place), earlier), part)


def what_everybody_takes(world: TrendingWorld) -> None:
    """After the list of what trends was read for the last time."""
    world.trends.refresh()
    send(world.state, *(event(f"u{n}", "i9", "purchase") for n in range(9)))
    consume(world.state)
    world.trends.refresh = lambda: None  # type: ignore[method-assign]


def test_a_list_that_was_read_some_seconds_before_is_found(world: TrendingWorld) -> None:
    received_a_minute_before(world.state)
    what_everybody_takes(world)
    found = world.replay(world.answer()["request_id"])
    assert (described(found), found.notes) == ([], [])


def test_how_old_a_list_may_have_been_is_said(world: TrendingWorld) -> None:
    what_everybody_takes(world)
    received_a_minute_before(world.state)
    found = world.replay(world.answer()["request_id"])
    assert found.differing
    assert "as of the answer, which read a list of up to 7 s before" in found.notes[0]
