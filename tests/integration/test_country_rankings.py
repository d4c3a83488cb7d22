"""What is popular and trends in a country: counted by the consumer, summed over partitions, ranked; on a real Valkey."""

import dataclasses
import json
import math
import random
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streams import DAY_MS, NOW_MS, event, make_consumer, records, send

from tastemaker import context
from tastemaker.cli import invoke
from tastemaker.commands import features
from tastemaker.errors import UsageError
from tastemaker.events.schema import Event
from tastemaker.features.counters import WEIGHT, WINDOWS_MS, Counters, event_weight, row_of
from tastemaker.features.countries import split_id
from tastemaker.features.rankings import in_country, top
from tastemaker.features.rebuild import rebuild
from tastemaker.features.trending import read_trending
from tastemaker.home import Home
from tastemaker.types import EVENT_KINDS

WINDOW = list(WINDOWS_MS).index("7d")


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    home = Home.make(tmp_path / "home")
    return dataclasses.replace(
        state, home=home, settings=state.settings.model_copy(update={"home": home.root})
    )


def there(country: str, user: str, item: str, kind: str = "click", **fields: Any) -> Event:
    return event(user, item, kind, context={"country": country, "device": "tv"}, **fields)


def local_records(state: Any) -> dict[tuple[int, str], Counters]:
    """By partition and name."""
    found = {}
    for p in range(state.keys.partitions):
        names = state.client.hkeys(state.keys.local_counters(p))
        for name, record in zip(
            names, records(state, state.keys.local_counters(p), names) if names else [], strict=True
        ):
            found[p, name] = Counters.decode([record])
    return found  # fmt: skip


def weights(state: Any) -> dict[tuple[str, str], float]:
    """Weight in the window of trends as of now, by country and item, over all partitions."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for (_, name), counters in local_records(state).items():
        found[split_id(name)] += counters.at(NOW_MS)[0, row_of(WEIGHT), WINDOW]
    return dict(found)


def truth(events: list[Event]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for one in events:
        code = (one.context or {}).get("country", "").upper()
        weight = event_weight(one.kind, one.value)
        if code in ("DE", "FR") and weight:
            found[code, one.item_id] += weight * math.exp(-(NOW_MS - one.timestamp_ms) / (7 * DAY_MS))
    return dict(found)


def some_events(count: int, seed: int) -> list[Event]:
    rng = random.Random(seed)
    return [
        event(
            f"u{rng.randrange(12)}", f"i:{rng.randrange(6)}", rng.choice(EVENT_KINDS), value=rng.uniform(1, 5),
            timestamp_ms=NOW_MS - rng.randrange(9 * DAY_MS),
            context=rng.choice([None, {"country": "DE"}, {"country": "fr"}, {"country": "Utopia"}, {"device": "tv"}]),
        )
        for _ in range(count)
    ]  # fmt: skip


def by_share(events: list[Event], country: str) -> list[str]:
    shares = {item: weight for (code, item), weight in truth(events).items() if code == country}
    return sorted(shares, key=lambda item: -shares[item])


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_and_batches_a_country_counts_what_happened_there(state: Any, seed: int) -> None:
    events = some_events(150, seed)
    shuffled, rng = random.Random(seed).sample(events, len(events)), random.Random(seed)
    worker = make_consumer(state)
    while shuffled:
        cut = rng.randint(1, 40)
        send(state, *shuffled[:cut])
        worker.step()
        shuffled = shuffled[cut:]
    assert worker.drain(10)
    assert weights(state) == pytest.approx(truth(events), rel=1e-9)
    for country in ("DE", "FR"):
        found = top(state.client, state.keys, in_country("trending", country), 10, NOW_MS)
        assert found.item_ids == by_share(events, country)
        expected = [truth(events)[country, item] for item in found.item_ids]
        assert found.weight_N == pytest.approx(expected, rel=1e-6)
    assert not any(state.client.scard(state.keys.changed_local(p)) for p in range(4))


def test_only_weight_in_a_known_country_costs_memory(state: Any) -> None:
    send(
        state,
        there("de", "ann", "a"), there("DE", "ann", "shown", "impression"), there("DE", "ann", "bad", "hide"),
        there("XX", "ann", "b"), there("DEU", "ann", "b"), event("ann", "b"),
        there("FR", "bot", "a", origin="simulator"),
    )  # fmt: skip
    assert make_consumer(state).drain(10)
    ((key, counters),) = local_records(state).items()
    assert key == (state.keys.partition("ann"), "DE:a")
    assert not counters.value_NKW[0, [row for row in range(len(EVENT_KINDS)) if row != row_of(WEIGHT)]].any()
    assert state.client.smembers(state.keys.rankings) == {
        "popular", "trending", "popular:country=DE", "trending:country=DE",
    }  # fmt: skip


def test_a_damaged_record_refuses_the_events_that_concern_it_and_no_others(state: Any) -> None:
    partition = state.keys.partition("ann")
    state.client.hset(state.keys.local_counters(partition), "DE:a", "damage")
    send(state, there("DE", "ann", "a"), there("FR", "ann", "a"), event("ann", "a", "impression"))
    assert make_consumer(state).drain(10)
    letters = state.client.xrange(state.keys.dead_letters(partition))
    assert ["'DE:a' cannot be read" in fields["reason"] for _, fields in letters] == [True]
    assert top(state.client, state.keys, in_country("popular", "FR"), 5, NOW_MS).item_ids == ["a"]
    assert top(state.client, state.keys, "popular", 5, NOW_MS).weight_N == pytest.approx([0.5])


def test_a_rebuild_restores_what_countries_count_and_drops_what_nobody_did(state: Any) -> None:
    events = some_events(120, 7)
    worker = make_consumer(state)
    send(state, *events)
    assert worker.drain(20)
    worker.close()
    expected, ranked = weights(state), read_trending(state.client, state.keys, NOW_MS, 1.0).of("DE")
    for p in range(4):
        state.client.delete(state.keys.local_counters(p))
        state.client.hset(state.keys.local_counters(p), "DE:nothing", Counters.zeros(1).encode()[0])
    state.client.zadd(state.keys.ranking(in_country("trending", "FR")), {"nothing": 1e9})
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert weights(state) == pytest.approx(expected, rel=1e-9)
    again = read_trending(state.client, state.keys, NOW_MS, 1.0)
    assert dict(again.of("DE")) == pytest.approx(dict(ranked), rel=1e-6)
    assert next(item for item, _ in again.of("FR")) != "nothing"


def test_another_window_makes_the_rankings_anew(state: Any) -> None:
    old, new = NOW_MS - 6 * DAY_MS, NOW_MS
    send(state, *(there("DE", f"u{n}", "old", timestamp_ms=old) for n in range(4)))
    send(state, there("DE", "u1", "new", timestamp_ms=new))
    worker = make_consumer(state)
    assert worker.drain(10)
    worker.close()
    names = ("trending", in_country("trending", "DE"))
    # Of a week's window .5 * 4 * e^(-6/7) = .85 stands against .5; of a day's .5 * 4 * e^-6 = .005.
    assert [top(state.client, state.keys, name, 2, NOW_MS).item_ids for name in names] == [["old", "new"]] * 2
    shorter = state.settings.state.model_copy(update={"trend_window": "1d"})
    state = dataclasses.replace(state, settings=state.settings.model_copy(update={"state": shorter}))
    worker = make_consumer(state)
    assert worker.drain(10)
    for name in names:
        found = top(state.client, state.keys, name, 2, NOW_MS)
        assert found.item_ids == ["new", "old"]
        assert found.weight_N == pytest.approx([0.5, 2 * math.exp(-6)], rel=1e-6)
    assert read_trending(state.client, state.keys, NOW_MS, 1.0).weight == pytest.approx(0.505, abs=1e-3)


def test_the_command_prints_rankings(
    state: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(state, there("DE", "ann", "a", "purchase"), there("FR", "bob", "b"))
    assert make_consumer(state).drain(10)
    at_its_url = state.settings.state.model_copy(update={"url": state.url})
    monkeypatch.setattr(context, "_settings", state.settings.model_copy(update={"state": at_its_url}))
    monkeypatch.setattr(features, "time", SimpleNamespace(time=lambda: NOW_MS / 1000))
    invoke(["features", "top", "--country", "de", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ranking"] == "trending:country=DE"
    assert [item["item_id"] for item in found["items"]] == ["a"]
    assert found["items"][0]["weight"] == pytest.approx(1.0, rel=1e-6)
    invoke(["features", "top", "--name", "popular"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("popular", "weight", "a", "b"))
    with pytest.raises(UsageError, match="no country"):
        invoke(["features", "top", "--country", "Utopia"])
