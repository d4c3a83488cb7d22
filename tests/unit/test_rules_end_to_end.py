"""From a request to the decision log through a bundle's own stages, each as a replica that runs it alone, and all in one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_world import World, items, variant
from tagged import open_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.stages.live import LiveStages
from tastemaker.stages.pipeline_config import Part
from tastemaker.stages.standing_rules import policy_in
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.pins import Pin

RULES = {
    "rules": [
        {"kind": "block", "match": {"categories": ["c2"]}},
        {"kind": "pin", "match": {"item_ids": ["sponsored"]}, "rank": 2, "when": {"devices": ["tv"]}},
    ]
}


class Shop(World):
    """A gateway over a real bundle in whose catalogue an item was put."""

    def __init__(self, bundle: Bundle, *, is_fused: bool = False) -> None:
        super().__init__()
        self.histories = {"old": ["i1", "i5"]}
        if is_fused:
            self.live = dict.fromkeys(_PARTS, LiveStages(bundle, is_ruled=True))
        else:
            self.live = {part: LiveStages(bundle, frozenset({part})) for part in _PARTS}
        put = Item(item_id="sponsored", category="c3", price=4.0).encode()
        changes = ItemChanges("L", 1, False, ["sponsored"], {"sponsored": put})
        face = LiveFace(BundleFace.of(bundle))
        for knows in (*{*self.live.values()}, face):
            knows.take(changes)
        self.pins = {"champion": Pin(1, face.face), "challenger": Pin(1, face.face)}

    def stages(self) -> Stages:
        async def retrieve(call: Any, timeout_seconds: float) -> Any:
            return self.live["retrieve"].pipeline.retrieve([call[1]])[0]

        async def rank(call: Any, timeout_seconds: float) -> Any:
            return self.live["rank"].pipeline.rank([call[1]], [call[2]])[0]

        async def rerank(call: Any, timeout_seconds: float) -> Any:
            return self.live["rerank"].pipeline.rerank([call[1]], [call[2]])[0]

        async def similar(call: Any, timeout_seconds: float) -> Any:
            return self.live["retrieve"].similar(call[1], call[2])

        return Stages(retrieve, rank, rerank, similar)


_PARTS: tuple[Part, ...] = ("retrieve", "rank", "rerank")


@pytest.fixture(params=[False, True], ids=["spread", "fused"])
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Shop:
    bundle = open_bundle(
        BundleStore(tmp_path / "bundles"), exploration={"share": 1.0, "max_interactions": 0}, reranking=RULES
    )
    return Shop(bundle, is_fused=request.param)


def test_the_bundles_rules_hold_from_the_search_to_the_answer(shop: Shop) -> None:
    body = shop.recommend(k=12, context={"device": "tv"})
    answer, pinned = items(body), body["items"][1]
    assert pinned["item_id"] == "sponsored"
    assert "pinned" in pinned["sources"]
    assert pinned["reason"] == "pinned"
    assert not {f"i{i}" for i in range(2, 24, 4)} & set(answer)
    assert not {"i1", "i5"} & set(answer)
    assert len(answer) == 12  # blocked items take no one's place in the search
    query = shop.pins["champion"].face.ruled(Query(np.array([1, 5], np.int32), k=12))
    [found] = shop.live["retrieve"].pipeline.retrieve([query])
    assert not {2, 6, 10, 14, 18, 22} & set(found.item_index.tolist())


def test_standing_rules_and_variants_come_beside_the_bundles(shop: Shop) -> None:
    shop.standing = policy_in({"law": json.dumps([{"kind": "block", "match": {"categories": ["c3"]}}])})
    shop.assignment = variant(
        policy={"reranking": {"rules": [{"kind": "filter", "match": {"categories": ["c0", "c2", "c3"]}}]}}
    )
    answer = items(shop.recommend(k=12, context={"device": "tv"}))
    assert answer
    assert set(answer) <= {f"i{i}" for i in range(0, 24, 4)}


def test_the_log_has_the_chances_of_an_exploring_request(shop: Shop) -> None:
    answer = items(shop.recommend(k=8))
    decision = shop.decisions[-1]
    assert list(decision.item_ids) == answer
    assert decision.slot_propensity_kind == "exact"
    assert decision.slot_propensity[:3] == [1.0, 1.0, 1.0]  # exploration begins at the fourth slot
    assert all(0 < chance <= 1 for chance in decision.slot_propensity)
    assert json.loads(decision.policy or "{}") == {}
