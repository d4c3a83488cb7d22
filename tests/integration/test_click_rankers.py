"""Click models as rankers, from recipe to answers: trained beside each other, published, swapped, served, explained, replayed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from ray_noise import RAY_NOISE
from served_home import ServedHome
from small import NUM_GROUPS, RECIPE
from waiting import until

from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Query

pytestmark = [pytest.mark.slow, *RAY_NOISE]

KINDS = {
    "deepfm": "{dim: 4, hidden: [16], fit: {epochs: 6, batch_size: 256}}",
    "lambdamart": "{num_trees: 40, num_leaves: 7, num_threads: 1}",
}
BY_ID = "  ranking: {item_ids: true}\n"


def recipe(kind: str) -> str:
    """The small one with a click model in the ranker's place; DeepFM also knows items by id."""
    ranker = f"ranker: {{kind: {kind}, config: {KINDS[kind]}}}"
    text = RECIPE.replace("ranker: {fit: {epochs: 2, requests_per_batch: 8}}", ranker)
    return text + BY_ID if kind == "deepfm" else text


class Trained(ServedHome):
    """Both kinds, trained by one start of the workers, and published."""

    def start_over(self) -> None:
        for kind in KINDS:
            self.write(f"{kind}.yaml", recipe(kind))
        self.run("train", *(f"{kind}.yaml" for kind in KINDS), "--workers", "1")
        self.published = {kind: self.json("publish", kind, "--json") for kind in KINDS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    home = Trained(tmp_path_factory.mktemp("rankers"))
    home.start_over()
    return home


@pytest.fixture(scope="module")
def served(trained) -> Iterator[httpx.Client]:
    trained.promote(trained.published["deepfm"])
    with trained.answering() as http:
        yield http


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_the_pipeline_with_its_ranker(trained, kind):
    offline = trained.json("evaluate", kind, "--json")
    rows = {row["system"]: row["ndcg@10"] for row in offline["rows"]}
    assert rows["pipeline"] > 1.5 * rows["popularity"]  # users stay with one group of items


def test_retrievers_are_trained_once_and_requests_as_often_as_they_differ(trained):
    kinds = sorted(path.name.split("-")[0] for path in (trained.home / "checkpoints").iterdir())
    assert [name for name in kinds if name in ("two", "memory")] == ["memory", "two"]
    assert kinds.count("ranker") == kinds.count("requests") == 2  # one of them with items by id


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundle_ranks_in_parts_as_whole_and_says_how_well(trained, kind):
    bundle = trained.open_bundle(trained.published[kind])
    assert bundle.json("ranker.json")["kind"] == kind
    assert bundle.json("metrics.json")["ranker"]["held_out_ndcg@10"] > 0.3
    history = np.array([bundle.index_of(str(item)) for item in (1, 5, 9, 13)], np.int32)
    queries = [Query(history, k=10), Query(np.empty(0, np.int32), k=10)]
    whole = Pipeline.from_bundle(bundle).recommend(queries)
    retriever, ranker = (Pipeline.from_bundle(bundle, frozenset({part})) for part in ("retrieve", "rank"))
    ranked = ranker.rank(queries, retriever.retrieve(queries))
    assert [one.item_index[:3].tolist() for one in whole] == [
        one.item_index[:3].tolist() for one in ranked
    ]  # the first three keep their places
    for one in ranked:
        assert ((one.score > 0) & (one.score < 1)).all()


def answered(served, trained, kind: str) -> dict[str, Any]:
    """An answer of the kind's bundle."""
    body = {"user_id": "nobody", "k": 5, "session": ["1", "5", "9", "13"]}

    def by_it() -> dict[str, Any] | None:
        response = served.post("/v1/recommendations", json=body)
        assert response.status_code == 200, response.text
        return response.json() if response.json()["bundle"] == trained.published[kind]["bundle"] else None

    return until(by_it, f"the bundle with {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_swapped_in_and_its_answers_are_explained_and_replayed(trained, served, kind):
    trained.promote(trained.published[kind])
    answer = answered(served, trained, kind)
    assert answer["degraded"] == []
    items = [item["item_id"] for item in answer["items"]]
    assert [int(item) % NUM_GROUPS for item in items].count(1) >= 3  # those of the visit
    body = {"user_id": "nobody", "k": 5, "session": ["1", "5", "9", "13"], "item_id": items[0]}
    explained = served.post("/v1/explain", json=body)
    assert explained.status_code == 200, explained.text
    ranker = trained.open_bundle(trained.published[kind]).json("ranker.json")["model"]
    assert explained.json()["features"].keys() == set(ranker["fields"]["dense"])

    def replayed() -> dict[str, Any] | None:
        process = trained.start("replay", answer["request_id"], "--json")
        out, error = process.communicate(timeout=120)
        if process.returncode:
            assert "not in the decision log" in error, error  # the archive is not written yet
            return None
        return dict(json.loads(out))

    report = until(replayed, "the archive")
    assert (report["same"], report["notes"]) == (True, [])
    assert [slot["replayed"] for slot in report["slots"]] == items
