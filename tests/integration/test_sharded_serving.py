"""Two shards as they are really served: they answer as a whole, a dead one costs its rows, and swaps are unmixed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from histories import put_histories
from ray_noise import RAY_NOISE
from served_graph import NUM_ITEMS, ids, write_bundle
from waiting import WAIT_SECONDS, until

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.config_serving import CacheSettings, GatewaySettings, RetrieverSettings, ServingSettings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.connection import open_state
from tastemaker.state.keys import Keys
from tastemaker.types import Query
from tastemaker_services.app import start

pytestmark = [pytest.mark.slow, *RAY_NOISE]
HISTORIES = {"known": [1, 5, 9], "other": [40, 3, 22, 58], "nobody": []}


@dataclass
class Served:
    """What answers, and whence."""

    home: Home
    settings: Settings
    client: httpx.Client = field(default_factory=httpx.Client)
    children: list[psutil.Process] = field(default_factory=list)
    pipelines: dict[int, Pipeline] = field(default_factory=dict)

    def publish(self, seed: int) -> None:
        """Makes a bundle the champion."""
        store, registry = BundleStore.of(self.settings, self.home), Registry(self.settings, self.home)
        ref = write_bundle(store, self.settings.catalogue, seed)
        version = registry.publish(self.settings.catalogue, ref, {})
        registry.set_alias(self.settings.catalogue, "champion", version.number, "test", "the newest")
        self.pipelines[version.number] = Pipeline.from_bundle(Bundle.open(store, ref))

    def recommend(self, user_id: str) -> dict[str, Any]:
        reply = self.client.post("/v1/recommendations", json={"user_id": user_id, "k": 8})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def offline(self, answer: dict[str, Any], user_id: str) -> list[str]:
        """What the pipeline of the version that answered gives in one piece."""
        query = Query(np.array(HISTORIES[user_id], np.int32), k=8)
        [slate] = self.pipelines[answer["bundle_version"]].recommend([query])
        return [f"é/{row}" for row in slate.item_index]

    def whole(self, user_id: str) -> dict[str, Any]:
        """An answer in which all have a part."""
        found: list[dict[str, Any]] = []

        def is_whole() -> bool:
            found.append(self.recommend(user_id))
            return not found[-1]["degraded"]

        until(is_whole, "an answer by all stages and shards")
        return found[-1]

    def shards(self) -> dict[str, psutil.Process]:
        """Living retrievers by name."""
        found = {}
        for child in psutil.Process().children(recursive=True):
            name = " ".join(child.cmdline()).partition("ServeReplica:tastemaker:")[2].partition(" ")[0]
            if name.startswith("Retriever"):
                found[name] = child
        return found


@pytest.fixture
def served(tmp_path: Any) -> Iterator[Served]:
    home = Home.make(tmp_path / "home")
    settings = Settings(
        home=home.root,
        gateway=GatewaySettings(port=0, admin_port=0, deadline_ms=20_000.0),
        serving=ServingSettings(source_ms=10_000.0, retriever=RetrieverSettings(shards=2, shard_ms=1000.0)),
        cache=CacheSettings(seconds=0),
    )
    found = Served(home, settings)
    found.publish(seed=1)
    with open_state(settings, home) as client:
        keys = Keys(settings.catalogue, settings.state.partitions)
        put_histories(
            client, keys, {user: [f"é/{row}" for row in rows] for user, rows in HISTORIES.items() if rows}
        )
    serving = start(settings, home)
    try:
        with httpx.Client(base_url=serving.url, trust_env=False, timeout=30.0) as found.client:
            yield found
    finally:
        serving.stop()


def test_two_shards_answer_as_a_whole_and_a_dead_one_costs_its_rows_alone(served: Served) -> None:
    assert sorted(served.shards()) == ["Retriever-0", "Retriever-1"]
    for user_id in HISTORIES:
        answer = served.whole(user_id)
        assert ids(answer) == served.offline(answer, user_id)
    for path, asked in (
        ("/v1/items/similar", {"item_id": "é/3", "k": 5}),
        ("/v1/search", {"q": "title 7", "k": 5}),
    ):
        reply = served.client.get(path, params=asked)
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["items"]) == 5
    told = served.client.get("/v1/explain", params={"user_id": "known", "item_id": "é/45", "k": 8}).json()
    assert {said["source"] for said in told["sources"]} == {"two_tower", "ease", "popular"}

    served.shards()["Retriever-1"].kill()
    seen: set[str] = set()
    of_first = {f"é/{row}" for row in range(NUM_ITEMS // 2)}

    def is_missing() -> bool:
        answer = served.recommend("known")  # 200, with items
        assert len(ids(answer)) == 8
        seen.update(answer["degraded"])
        if answer["degraded"] == ["no-shard"]:
            assert set(ids(answer)) <= of_first
        return "no-shard" in seen

    until(is_missing, "a shard to be missing")
    answer = served.whole("known")  # Serve has started it again
    assert ids(answer) == served.offline(answer, "known")
    assert seen <= {"no-shard"}

    served.publish(seed=2)
    versions: list[int] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while versions[-3:] != [2, 2, 2]:
        assert time.monotonic() < deadline, "it does not swap"
        answer = served.whole("other")
        assert ids(answer) == served.offline(answer, "other")  # all of it of the version that it names
        versions.append(answer["bundle_version"])
        time.sleep(0.05)
    assert versions == sorted(versions)
