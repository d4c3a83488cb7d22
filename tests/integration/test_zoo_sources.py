"""A model of sequences from recipe to answers: trained beside the others, published, served and explained by HTTP."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from ray_noise import RAY_NOISE
from served_home import ServedHome
from small import NUM_GROUPS, RECIPE

from tastemaker.models.log import Askers
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Query
from tastemaker_training.sources.zoo_models import load_zoo_model

pytestmark = [pytest.mark.slow, *RAY_NOISE]

MODELS = """
models:
  sequence: {kind: sasrec, config: {dim: 16, max_length: 20, fit: {epochs: 12, batch_size: 16, learning_rate: 0.005}}}
  user-knn: {kind: user-knn, config: {num_neighbours: 20}}
"""
SOURCE = "      - {name: sequence, quota: 20}\n"


class Trained(ServedHome):
    """The small recipe with two further models, of which one is a source; trained, published and made champion."""

    recipe = RECIPE.replace("      - {name: popular", SOURCE + "      - {name: popular") + MODELS

    def start_over(self) -> None:
        self.run("train", "small.yaml", "--workers", "1")
        self.offline = self.json("evaluate", "small", "--json")
        self.published = self.json("publish", "small", "--json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    home = Trained(tmp_path_factory.mktemp("zoo"))
    home.start_over()
    return home


@pytest.fixture(scope="module")
def served(trained) -> Iterator[httpx.Client]:
    trained.promote(trained.published)
    with trained.answering() as http:
        yield http


def test_the_table_has_a_row_for_each_further_model(trained):
    rows = {row["system"]: row["ndcg@10"] for row in trained.offline["rows"]}
    assert list(rows)[-5:] == ["sequence", "user-knn", "two-tower", "pipeline before reranking", "pipeline"]
    for name in ("sequence", "user-knn"):
        assert rows[name] > 1.5 * rows["popularity"]  # users stay with one group of items
        paired = trained.offline["paired"][f"{name} - best baseline"]
        assert paired["mean"] == pytest.approx(rows[name] - rows[paired["over"]], abs=1e-9)


def test_the_bundle_holds_the_source_and_not_what_was_only_compared(trained):
    bundle = trained.open_bundle(trained.published)
    assert bundle.has("sequence.safetensors")
    assert not bundle.has("user-knn.json")
    (folder,) = (
        path for path in (trained.home / "checkpoints").glob("model-*") if
        b"sasrec" in (path / "refit" / "model.json").read_bytes()
    )  # fmt: skip
    model = load_zoo_model(folder, "refit")
    history = np.array([bundle.index_of(str(item)) for item in (1, 5, 9, 13)], np.int32)
    (found,) = Pipeline.from_bundle(bundle).retrieve([Query(history, k=10)])
    expected = model.score(Askers.strangers([history]), [found.item_index])[0]
    place = Pipeline.from_bundle(bundle).source_names.index("sequence")
    np.testing.assert_allclose(found.source_score_KS[:, place], expected, atol=1e-4)


def test_an_answer_heeds_the_visit_and_is_explained_by_the_model(served):
    body = {"user_id": "nobody", "k": 5, "session": ["1", "5", "9", "13"]}
    answer = served.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    items = [item["item_id"] for item in answer.json()["items"]]
    assert len(items) == 5
    assert answer.json()["degraded"] == []
    groups = [int(item) % NUM_GROUPS for item in items]
    assert groups.count(1) >= 3  # those of the visit
    explained = served.post("/v1/explain", json=body | {"item_id": items[0]})
    assert explained.status_code == 200, explained.text
    said = {source["source"]: source for source in explained.json()["sources"]}
    assert said["sequence"]["score"] is not None
