"""A fused graph as it is really served: one process answers, as the bundle's pipeline does, and swaps to the next bundle."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from histories import put_histories
from ray_noise import RAY_NOISE
from tagged import items_table, write_bundle
from waiting import WAIT_SECONDS, until

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.config_serving import CacheSettings, GatewaySettings, ServingSettings
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.connection import open_state
from tastemaker.state.keys import Keys
from tastemaker.types import Query
from tastemaker_services.app import start

pytestmark = [pytest.mark.slow, *RAY_NOISE]
HISTORY = [1, 5, 9]


@dataclass
class Served:
    """What answers, and whence."""

    client: httpx.Client
    home: Home
    settings: Settings
    children: list[psutil.Process]

    def publish(self, **config: Any) -> Pipeline:
        """Makes a bundle the champion."""
        store, registry = BundleStore.of(self.settings, self.home), Registry(self.settings, self.home)
        space = ContentSpace.fit(items_table(), ContentConfig(dim=512))
        ref = write_bundle(store, exploration={"share": 0.0}, space=space, **config)
        version = registry.publish(self.settings.catalogue, ref, {})
        registry.set_alias(self.settings.catalogue, "champion", version.number, "test", "the newest")
        return Pipeline.from_bundle(Bundle.open(store, ref))

    def recommend(self) -> dict[str, Any]:
        return self.told(self.client.post("/v1/recommendations", json={"user_id": "known", "k": 8}))

    def explain(self, item_id: str) -> dict[str, Any]:
        asked = {"user_id": "known", "item_id": item_id, "k": 8}
        return self.told(self.client.get("/v1/explain", params=asked))

    def found(self, text: str) -> list[str]:
        asked = {"q": text, "user_id": "known", "k": 1}
        return [item["item_id"] for item in self.told(self.client.get("/v1/search", params=asked))["items"]]

    @staticmethod
    def told(reply: httpx.Response) -> dict[str, Any]:
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        assert answer["degraded"] == []
        return answer


def offline(pipeline: Pipeline) -> list[str]:
    [slate] = pipeline.recommend([Query(np.array(HISTORY, np.int32), k=8)])
    return [f"i{row}" for row in slate.item_index]


@pytest.fixture
def served(tmp_path: Any) -> Iterator[tuple[Served, Pipeline]]:
    home = Home.make(tmp_path / "home")
    settings = Settings(
        home=home.root,
        gateway=GatewaySettings(port=0, admin_port=0, deadline_ms=10_000.0),
        serving=ServingSettings(graph="fused", source_ms=10_000.0),
        cache=CacheSettings(seconds=0),
    )
    found = Served(httpx.Client(), home, settings, [])
    first = found.publish()
    with open_state(settings, home) as client:
        put_histories(
            client, Keys(settings.catalogue, settings.state.partitions), {"known": [f"i{i}" for i in HISTORY]}
        )
    others = set(psutil.Process().children(recursive=True))
    serving = start(settings, home)
    try:
        found.children = [child for child in psutil.Process().children(recursive=True) if child not in others]
        with httpx.Client(base_url=serving.url, trust_env=False, timeout=20.0) as found.client:
            yield found, first
    finally:
        serving.stop()


def test_one_process_answers_every_question_as_the_pipeline_does_and_swaps(
    served: tuple[Served, Pipeline],
) -> None:
    here, first = served
    replicas = [
        " ".join(child.cmdline()) for child in here.children if "ServeReplica" in " ".join(child.cmdline())
    ]
    assert [name.partition("tastemaker:")[2].split()[0] for name in replicas] == ["Gateway"]
    answer = here.recommend()
    assert [item["item_id"] for item in answer["items"]] == offline(first)

    for place, item_id in enumerate(offline(first), 1):
        told = here.explain(item_id)
        assert (told["verdict"], told["shown_rank"]) == ("shown", place)
    taken = here.explain("i1")
    assert (taken["verdict"], taken["rules"]) == ("hard-rule", ["already-taken"])
    assert {said["source"] for said in taken["sources"]} == {"two_tower", "ease", "als", "popular"}
    concert = {"item_id": "concert", "title": "a violin sonata", "tags": ["t1"]}
    assert here.client.put("/v1/items", json={"items": [concert]}).status_code == 200
    until(lambda: here.found("Violin!") == ["concert"], "what was put")
    assert here.client.delete("/v1/items/concert").status_code == 200

    second = here.publish(reranking={"mmr": None, "keep_top": 0})
    deadline = time.monotonic() + WAIT_SECONDS
    while (answer := here.recommend())["bundle_version"] == 1:
        assert time.monotonic() < deadline, "it does not swap"
        time.sleep(0.1)
    assert [item["item_id"] for item in answer["items"]] == offline(second)
