"""Promotions and items that are put, while the graph answers."""

import time
from typing import Any

from ray_noise import RAY_NOISE
from served_graph import Running, ids, put_item
from waiting import until

pytestmark = RAY_NOISE


def test_a_promotion_flips_the_answers_without_a_failed_request(running: Running) -> None:
    catalogue = running.settings.catalogue
    old = running.recommend("known")
    other = running.registry.version(catalogue, "challenger").number
    running.registry.set_alias(catalogue, "champion", other, "test", "better")

    def flipped() -> bool:
        answer = running.recommend("known")
        assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9])
        return bool(answer["bundle_version"] == other)

    until(flipped, "the promoted version to answer")
    assert running.recommend("known")["bundle"] != old["bundle"]
    running.registry.rollback(catalogue, "champion", "test", "back again")
    until(lambda: running.recommend("known")["bundle"] == old["bundle"], "the rollback")


def test_a_new_item_is_recommended_at_once_outlives_a_swap_and_goes_when_deleted(running: Running) -> None:
    asked: dict[str, Any] = {"filters": {"tags": ["new/tag"]}}
    assert ids(running.recommend("known", **asked)) == []
    put_item(running, "new/1", tags=["new/tag", "Drama"], category="Drama")
    before = time.monotonic()
    until(lambda: ids(running.recommend("known", **asked)) == ["new/1"], "the new item")
    assert time.monotonic() - before < 60  # the promise; it is about a second
    assert running.recommend("known", **asked)["degraded"] == []
    similar = running.client.get("/v1/items/similar", params={"item_id": "new/1", "k": 3}).json()
    assert (len(similar["items"]), similar["degraded"]) == (3, [])

    catalogue, old = running.settings.catalogue, running.recommend("known")["bundle"]
    other = running.registry.version(catalogue, "challenger").number
    running.registry.set_alias(catalogue, "champion", other, "test", "better")

    def swapped() -> bool:
        answer = running.recommend("nobody", **asked, k=1)
        assert ids(answer) == ["new/1"]
        return bool(answer["bundle"] != old)

    until(swapped, "the swap")
    running.registry.rollback(catalogue, "champion", "test", "back again")
    until(lambda: running.recommend("known")["bundle"] == old, "the rollback")
    assert running.client.delete("/v1/items/new/1").json() == {"deleted": 1}
    until(lambda: ids(running.recommend("known", **asked)) == [], "the deletion")
