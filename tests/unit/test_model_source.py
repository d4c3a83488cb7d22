"""A model of the zoo as a source: by vectors or by scores, over a bundle whose catalogue grows."""

from dataclasses import replace

import numpy as np
import pytest
from piped_world import PipedWorld
from tagged import NUM_ITEMS, open_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.item_rows import Item
from tastemaker.errors import CompatibilityError
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.zoo import Packed, fit
from tastemaker.stages.bundle_zoo import index_of
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.live import LiveStages
from tastemaker.stages.model_source import ModelSource
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query
from tastemaker_services.gateway.explaining import Explainer
from tastemaker_services.web.question_schema import ExplainRequest

KINDS = {
    "sasrec": {"dim": 8, "fit": {"epochs": 3, "learning_rate": 0.01}},
    "bert4rec": {"dim": 8, "fit": {"epochs": 3, "learning_rate": 0.01}},
    "ease": {},
    "popular": {},
}
HISTORY = np.array([1, 5, 9], np.int32)


@pytest.fixture(scope="module")
def models() -> dict[str, Recommender]:
    generator = np.random.default_rng(0)
    taken = np.concatenate([generator.permutation(NUM_ITEMS)[:6] for _ in range(40)])
    times = np.arange(len(taken))
    log = Log.of(np.repeat(np.arange(40), 6), taken, num_users=40, num_items=NUM_ITEMS, timestamp_ms_N=times)
    return {kind: fit(kind, log, settings) for kind, settings in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_proposes_what_its_model_recommends_within_the_rules(models, kind):
    model, source = models[kind], ModelSource(kind, models[kind])
    allowed = np.arange(NUM_ITEMS) % 3 != 0
    query = Query(HISTORY, exclude=np.array([4, 7], np.int32), allowed=allowed)
    rows, scores = source.propose([query], 6)
    filters = Filters(exclude=[query.exclude], allowed_I=allowed)
    expected, expected_scores = model.recommend(Askers.strangers([HISTORY]), 6, filters)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    (given,) = source.score([query], [rows[0]])
    np.testing.assert_allclose(given, scores[0], atol=1e-5)


@pytest.mark.parametrize(("kind", "speaks"), [("sasrec", False), ("ease", False), ("popular", True)])
def test_who_has_no_history_is_answered_by_those_that_need_none(models, kind, speaks):
    source = ModelSource(kind, models[kind])
    query = Query(np.empty(0, np.int32))
    assert source.needs_history is not speaks
    assert (source.propose([query], 3)[0] >= 0).all() == speaks
    assert np.isfinite(source.score([query], [HISTORY])[0]).all() == speaks


def bundle_of(tmp_path, model: Recommender, *, with_index: bool = False, **more: object) -> Bundle:
    def add(writer: BundleWriter, als: Als) -> None:
        del als
        writer.add_model("sequence", Packed(model))
        if with_index:
            vectors = model.item_vectors()
            assert vectors is not None
            writer.add_index(index_of("sequence"), FaissIndex.build(vectors), "sequence.safetensors")

    store = BundleStore(tmp_path)
    return open_bundle(store, sources=("sequence", "popular"), add_more=add, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("with_index", [False, True])
def test_a_bundles_model_proposes_and_scores(models, tmp_path, with_index):
    live = LiveStages(bundle_of(tmp_path, models["sasrec"], with_index=with_index))
    query = Query(HISTORY, k=5)
    (found,) = live.pipeline.retrieve([query])
    expected = models["sasrec"].score(Askers.strangers([HISTORY]), [found.item_index])[0]
    np.testing.assert_allclose(found.source_score_KS[:, 0], expected, atol=1e-5)
    assert len(live.pipeline.recommend([query])[0]) == 5


def test_items_that_are_put_later_are_passed_over(models, tmp_path):
    live = LiveStages(bundle_of(tmp_path, models["sasrec"], exploration={"share": 0.0}))
    (before,) = live.pipeline.retrieve([Query(HISTORY, k=5)])
    new = Item(item_id="new", tags=["t1"]).encode()
    live.take(ItemChanges("L", 1, False, ["new"], {"new": new}))
    with_new = np.append(HISTORY, NUM_ITEMS).astype(np.int32)
    (after,) = live.pipeline.retrieve([Query(with_new, k=NUM_ITEMS + 1)])
    score = dict(zip(after.item_index.tolist(), after.source_score_KS[:, 0].tolist(), strict=True))
    assert np.isnan(score.get(NUM_ITEMS, np.nan))  # nothing is said of it, and as history it says nothing
    for row, before_score in zip(before.item_index.tolist(), before.source_score_KS[:, 0], strict=True):
        assert score[row] == pytest.approx(before_score, abs=1e-5)


def test_an_explanation_names_what_the_model_says_and_the_ranker_reads(models, tmp_path):
    live = LiveStages(bundle_of(tmp_path, models["sasrec"]))
    query = Query(HISTORY, k=5)
    (shown,) = live.pipeline.recommend([query])
    row = int(shown.item_index[0])
    names = feature_names(live.pipeline.config.retrieval.ranked_sources)
    explained = live.pipeline.explain(replace(query, keep_features=True), row, names=names)
    said = {one.source: one.score for one in explained.sources}
    expected = models["sasrec"].score(Askers.strangers([HISTORY]), [np.array([row])])[0][0]
    assert said["sequence"] == pytest.approx(float(expected), abs=1e-5)
    assert np.isfinite([explained.features["sequence_z"], explained.features["sequence_log_rank"]]).all()


def test_a_kind_that_this_release_does_not_know_is_refused(models, tmp_path):
    class Later(Packed):
        def config_dict(self):
            return super().config_dict() | {"kind": "later"}

    def add(writer: BundleWriter, als: Als) -> None:
        del als
        writer.add_model("sequence", Later(models["sasrec"]))

    bundle = open_bundle(BundleStore(tmp_path), sources=("sequence", "popular"), add_more=add)
    with pytest.raises(CompatibilityError, match="serve it with the release that published it"):
        LiveStages(bundle)


def test_the_gateway_asks_with_the_visit_in_the_history_and_explains_the_score(models, tmp_path):
    world = PipedWorld(bundle_of(tmp_path, models["sasrec"], exploration={"share": 0.0}))
    world.histories = {"ann": ["i1", "i5"]}
    answer = world.recommend("ann", k=5, session=["i9"], explain=True)
    assert answer["degraded"] == []
    first = answer["items"][0]["item_id"]
    asked = ExplainRequest(user_id="ann", item_id=first, k=5, session=("i9",))
    told = world.use(lambda gateway: Explainer(gateway, world.stages()).explain(asked, "live"))
    said = {one["source"]: one["score"] for one in told["sources"]}
    row = np.array([int(first.removeprefix("i"))], np.int32)
    by_model = models["sasrec"].score(Askers.strangers([HISTORY]), [row])[0][0]  # i1, i5 and, the newest, i9
    assert told["verdict"] == "shown"
    assert said["sequence"] == pytest.approx(float(by_model), abs=1e-4)
