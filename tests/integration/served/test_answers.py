"""Answers of the whole graph: what is in a list, what may not be, and why."""

import json
import os
from typing import Any

from ray_noise import RAY_NOISE
from served_graph import NUM_ITEMS, READ, SOURCES, Running, ids, now_ms, put_item
from waiting import until

pytestmark = RAY_NOISE


def test_it_is_ready_once_started(running: Running) -> None:
    assert running.client.get("/readyz").json() == {"status": "ready"}
    assert running.client.get("/healthz").status_code == 200
    announced = json.loads((running.home / "run" / "serving.json").read_text())
    assert announced == {
        "pid": os.getpid(),
        "url": running.serving.url,
        "admin_url": running.serving.admin_url,
    }


def test_a_served_slate_is_the_offline_pipelines(running: Running) -> None:
    answer = running.recommend("known", k=10)
    assert answer["degraded"] == []
    assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9])
    assert ids(running.recommend("known", k=10)) == ids(answer)
    session = running.recommend("known", session=["é/11", "nowhere", "é/5"])
    assert ids(session) == running.offline(answer["bundle"], [7, 9, 11, 5], visit=[11, 5])
    stages = {"retrieve", "rank", "rerank"}
    assert set(answer["timings_ms"]) == {"history", "total", *stages, *(f"{stage}_work" for stage in stages)}


def test_a_list_is_answered_again_until_the_users_next_event(running: Running) -> None:
    event = {
        "event_id": "c1", "user_id": "again", "item_id": "é/30", "kind": "click", "timestamp_ms": now_ms(),
    }  # fmt: skip
    first = running.recommend("again")
    assert first["cached"] is False
    cached = until(lambda: (answer := running.recommend("again"))["cached"] and answer, "the list to be kept")
    assert (cached["items"], cached["cached_from"]) == (first["items"], first["request_id"])
    assert running.recommend("again", origin="simulator")["cached"] is False
    running.client.post("/v1/events", json={"events": [event]})
    fresh = until(
        lambda: (answer := running.recommend("again"))["items"] != first["items"] and answer,
        "the click to count",
    )
    assert ids(fresh) == running.offline(fresh["bundle"], [30], user="again")


def test_what_a_user_hides_is_not_shown_again(running: Running) -> None:
    first = ids(running.recommend("picky", k=5))
    event = {
        "event_id": "h1", "user_id": "picky", "item_id": first[0], "kind": "hide", "timestamp_ms": now_ms(),
    }  # fmt: skip
    running.client.post("/v1/events", json={"events": [event]})
    answer = until(
        lambda: first[0] not in ids(answer := running.recommend("picky", k=5)) and answer, "the refusal"
    )
    assert len(ids(answer)) == 5


def test_an_unknown_user_gets_what_is_popular_at_once(running: Running) -> None:
    answer = running.recommend("first visit", k=5, context={"device": "tv", "mood": "?"})
    assert answer["degraded"] == []
    assert ids(answer) == running.offline(answer["bundle"], [], k=5)
    assert {item["reason"] for item in answer["items"]} == {"popular now"}


def test_hard_rules_hold_end_to_end(running: Running) -> None:
    answer = running.recommend("known", k=50, exclude=["é/0"], filters={"categories": ["Drama"]})
    rows = {int(item_id.removeprefix("é/")) for item_id in ids(answer)}
    assert rows <= set(range(0, NUM_ITEMS, 3)) - {0, 9}
    assert len(rows) == 18


def test_an_items_country_and_age_are_hard_rules(running: Running) -> None:
    put_item(running, "new/2", tags=["rules"], regions=["DE"], maturity=16)
    asked: dict[str, Any] = {"filters": {"tags": ["rules"]}, "context": {"country": "de"}}
    until(lambda: ids(running.recommend("known", **asked)) == ["new/2"], "the item where it may be shown")
    for less in ({"context": {"country": "FR"}}, {"context": {}}):
        assert ids(running.recommend("known", **asked | less)) == []
    too_young = {"filters": {"tags": ["rules"], "max_maturity": 15}}
    assert ids(running.recommend("known", **asked | too_young)) == []
    assert running.client.delete("/v1/items", params={"item_id": "new/2"}).json() == {"deleted": 1}
    until(lambda: ids(running.recommend("known", **asked)) == [], "the deletion")


def test_similar_items_come_from_the_index(running: Running) -> None:
    by_query = running.client.get("/v1/items/similar", params={"item_id": "é/4", "k": 3}).json()
    by_path = running.client.get("/v1/items/é%2F4/similar?k=3").json()
    assert ids(by_query) == ids(by_path)
    assert len(ids(by_query)) == 3
    assert "é/4" not in ids(by_query)
    assert by_query["degraded"] == []


def test_why_an_item_is_shown_is_told_as_it_is_answered(running: Running) -> None:
    answer = running.recommend("known", k=5)

    def explain(item_id: str) -> dict[str, Any]:
        asked = {"user_id": "known", "item_id": item_id, "k": 5}
        told: dict[str, Any] = running.client.get("/v1/explain", params=asked).json()
        assert told["degraded"] == []
        return told

    for place, item_id in enumerate(ids(answer), 1):
        told = explain(item_id)
        assert (told["verdict"], told["shown_rank"]) == ("shown", place)
        assert told["features"].keys() >= {"ease_z", *READ}
    taken = explain("é/7")
    assert (taken["verdict"], taken["rules"]) == ("hard-rule", ["already-taken"])
    assert {said["source"] for said in taken["sources"]} == set(SOURCES)
    others = [explain(f"é/{n}")["verdict"] for n in (0, 20, 59)]
    assert set(others) <= {"shown", "behind-k", "below-num-candidates", "not-proposed"}
    assert running.client.get("/v1/explain", params={"user_id": "u", "item_id": "?"}).status_code == 404


def test_a_long_list_is_read_page_by_page(running: Running) -> None:
    answer = running.recommend("known", k=7, paged=True)
    found = ids(answer)
    while answer["next_cursor"]:
        answer = running.recommend("known", k=7, cursor=answer["next_cursor"])
        found += ids(answer)
    assert len(found) == len(set(found)) == NUM_ITEMS - 3


def test_items_are_found_by_words(running: Running) -> None:
    answer = running.client.get("/v1/search", params={"q": "the title 7", "k": 3}).json()
    assert (answer["degraded"], ids(answer)[0], answer["items"][0]["reason"]) == ([], "é/7", "fits the words")
    asked = {"q": "the title 7", "user_id": "known", "filters": {"categories": ["Comedy"]}, "personal": 0.2}
    answer = running.client.post("/v1/search", json=asked).json()
    rows = {int(item_id.removeprefix("é/")) for item_id in ids(answer)}
    assert len(rows) == 10
    assert rows <= set(range(1, NUM_ITEMS, 3)) - {7}  # who took é/7
