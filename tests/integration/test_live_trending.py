"""What a process knows of what trends, on a real Valkey: read anew, trusted where enough happened, kept while state is away."""

import time
from typing import Any

import numpy as np
import pytest
import redis
from streams import event, make_consumer, send
from waiting import until

from tastemaker import telemetry
from tastemaker.config_serving import TrendingSettings
from tastemaker.features import trending as module
from tastemaker.features.rankings import in_category, in_country
from tastemaker.features.trending import TrendingRows, read_trending
from tastemaker.models.popularity import fit_popularity
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.trending import TrendingSource
from tastemaker.state.connection import connect
from tastemaker.types import Query
from tastemaker_services.replicas.live_trending import LiveTrending

ITEMS = {"a": 0, "b": 1, "c": 2}


def proposed(live: LiveTrending, country: str) -> list[int]:
    popularity = fit_popularity(np.array([2], np.int32), np.array([1]), 3)
    source = TrendingSource(
        "trending", PopularSource("popular", popularity), TrendingRows(ITEMS.get, live.current)
    )
    asked = Query(history_L=np.empty(0, np.int32), context={"country": country})
    rows_BK, _ = source.propose([asked], 2)
    return rows_BK[0].tolist()


def test_events_change_what_the_source_proposes_within_a_refresh(state: Any) -> None:
    settings = TrendingSettings(refresh_seconds=0.05, least_weight=2.0, country_prior=1.0)
    live = LiveTrending(state.client, state.keys, settings)
    live.start()
    try:
        worker = make_consumer(state)
        assert proposed(live, "DE") == [2, 0]  # as the bundle says: nothing has happened
        send(state, *(event(f"u{n}", "a", "purchase", context={"country": "FR"}) for n in range(3)))
        send(state, *(event(f"u{n}", "b", "purchase", context={"country": "DE"}) for n in range(2)))
        assert worker.drain(10)
        until(lambda: proposed(live, "DE") == [1, 0], "what trends in DE")
        assert proposed(live, "FR") == proposed(live, "") == [0, 1]
        age = telemetry.TRENDING_AGE.labels(state.keys.catalogue)._value.get()
        assert 0 <= age < 5
    finally:
        live.stop()


def test_too_little_is_not_trusted(state: Any) -> None:
    live, worker = (
        LiveTrending(state.client, state.keys, TrendingSettings(least_weight=2.0)),
        make_consumer(state),
    )
    send(state, event("ann", "a", "purchase"))
    assert worker.drain(10)
    live.refresh()
    assert live.current() is None
    send(state, event("bob", "a", "purchase"), event("cid", "b", "view"))
    assert worker.drain(10)
    live.refresh()
    assert live.current() is not None


def test_while_state_is_away_the_last_snapshot_stays_and_ages(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(state.url)
    live = LiveTrending(client, state.keys, TrendingSettings(least_weight=0.0))
    send(state, event("ann", "a", "purchase"))
    assert make_consumer(state).drain(10)
    live.refresh()
    found = live.current()

    def gone(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(client, "pipeline", gone)
    later_ns = time.time_ns() + 120_000_000_000
    monkeypatch.setattr("tastemaker_services.replicas.live_trending.time.time_ns", lambda: later_ns)
    live.refresh()
    assert live.current() is found
    assert telemetry.TRENDING_AGE.labels(state.keys.catalogue)._value.get() > 60


def test_a_snapshot_reads_a_bounded_number_of_rankings_and_reaches_deeper_by_category(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, keys = state.client, state.keys
    for n, name in enumerate(["trending", *(in_category("trending", f"c{n}") for n in range(4))]):
        client.zadd(keys.ranking(name), {f"{name}-{m}": float(m) for m in range(n + 1)})
        client.sadd(keys.rankings, name, "popular")
    client.zadd(keys.ranking(in_country("trending", "DE")), {f"d{m}": float(m) for m in range(9)})
    client.sadd(keys.rankings, in_country("trending", "DE"))
    monkeypatch.setattr(module, "MOST_READ", 3)
    monkeypatch.setattr(module, "PART_DEPTH", 2)
    found = read_trending(client, keys, 0, 1.0)
    # The whole, and of the longest three the two best: those of DE, c3 and c2.
    assert [item for item, _ in found.of("")] == [
        "trending:category=c3-4", "trending:category=c2-3", "trending:category=c3-3", "trending:category=c2-2",
        "trending-0",
    ]  # fmt: skip
    assert [item for item, _ in found.of("DE")][:2] == ["d8", "d7"]
