"""Models of a transfer where recipes and plans name them: fitted twice, released as a source, compared within the target."""

import json

import numpy as np
import pytest
from tagged import NUM_ITEMS, NUM_TAGS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.data.schema import Dataset
from tastemaker.data.splits import leave_last
from tastemaker.errors import ConfigError, DataError
from tastemaker.evaluation.comparison import compare
from tastemaker.evaluation.plan import read_plan
from tastemaker.evaluation.windows import LastOut, folds, within
from tastemaker.models.log import Askers, Log
from tastemaker.models.zoo import ZooModel
from tastemaker.stages.live import LiveStages
from tastemaker.types import Query
from tastemaker_training.sources.zoo_models import add_zoo_models, fit_zoo_model, load_zoo_model

NUM_USERS, EACH = 60, 10
DOMAINS = {"by": "category", "target": ["c0", "c1"]}
ASKED = ZooModel(
    kind="shared-tower", config={"domains": DOMAINS, "dim": 8, "epochs": 4, "monitor": {"least_users": 5}}
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    draws = np.random.default_rng(0)
    items = np.concatenate([draws.permutation(NUM_ITEMS)[:EACH] for _ in range(NUM_USERS)])
    num = len(items)
    return Dataset(
        user_ids=[f"u{n}" for n in range(NUM_USERS)], item_ids=[f"i{n}" for n in range(NUM_ITEMS)],
        user_index=np.repeat(np.arange(NUM_USERS), EACH).astype(np.int32), item_index=items.astype(np.int32),
        timestamp_ms=np.arange(num), value=np.ones(num, np.float32), kind_index=np.zeros(num, np.int8),
        slot=np.zeros(num, np.int32), device_row=np.zeros(num, np.int8), items=items_table(), fingerprint="f" * 64,
    )  # fmt: skip


def test_what_the_first_fit_decided_holds_for_the_second(dataset, tmp_path):
    fit_zoo_model(dataset, leave_last(dataset, 1, 1), ASKED, tmp_path)
    first, second = (load_zoo_model(tmp_path, fit) for fit in ("train", "refit"))
    decided = json.loads((tmp_path / "refit" / "model.json").read_text())["model"]["decided"]
    assert {group["group"] for group in decided["groups"]} >= {"cold", "few", "many"}
    assert first.config.decided == second.config.decided
    assert decided == first.config.decided.model_dump(mode="json")


def test_a_source_of_the_graph_proposes_items_of_the_target(dataset, tmp_path):
    kept = ASKED.model_copy(update={"config": ASKED.config | {"decided": {"kept": ["cold", "few"]}}})
    fit_zoo_model(dataset, leave_last(dataset, 1, 1), kept, tmp_path)
    model = load_zoo_model(tmp_path, "refit")

    def add(writer, als):
        del als
        add_zoo_models(writer, {"moved": model}, ["moved"], dataset)

    store = BundleStore(tmp_path / "bundles")
    bundle = Bundle.open(store, write_bundle(store, sources=("moved", "popular"), add_more=add))
    of_source = np.array([2, 2 + NUM_TAGS], np.int32)  # categories c2: cold in the target
    for history_L in (of_source, np.array([2, 0], np.int32)):
        (found,) = LiveStages(bundle).pipeline.retrieve([Query(history_L, k=5)])
        expected, _ = model.recommend(Askers.strangers([history_L]), 5)
        by_model = found.item_index[np.argsort(-found.source_score_KS[:, 0], kind="stable")[:5]]
        assert by_model.tolist() == expected[0].tolist()
        assert (by_model % NUM_TAGS <= 1).all()


PLAN = """
split: {kind: last-out, num: 2}
within: {by: category, target: [c0, c1]}
models:
  popular: {kind: popular}
  alone: {kind: shared-tower, config: {domains: &both {by: category, target: [c0, c1]}, dim: 8, epochs: 2, decided: {kept: []}}}
  mapped: {kind: emcdr, config: {domains: *both, target: {dim: 4}, source: {dim: 4}, least: 1}}
ks: [5]
compared: [ndcg@5]
segments: [activity]
"""


def test_a_plan_within_a_domain_compares_what_is_said_of_it(dataset, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    found = compare(read_plan(tmp_path / "plan.yaml"), dataset, None)  # type: ignore[arg-type]
    num_target = sum(item % NUM_TAGS <= 1 for item in range(NUM_ITEMS))
    assert found["ranked"] == f"all {num_target} items of category c0, c1, those taken left out"
    held = [items[-2:] for items in np.split(dataset.item_index, NUM_USERS)]
    asked = sum((items % NUM_TAGS <= 1).any() for items in held)
    assert {row["num_users"] for row in found["systems"]} == {asked}
    assert [row["system"] for row in found["systems"]] == ["popular", "alone", "mapped"]
    # At most the target's share of the catalogue is ever listed.
    assert all(row["coverage"] <= num_target / NUM_ITEMS for row in found["systems"])


def test_a_fold_within_some_items_keeps_histories_and_loses_other_targets():
    item_N = np.array([0, 1, 2, 0, 3], np.int32)
    log = Log.of(np.array([0, 0, 0, 1, 1]), item_N, num_users=2, num_items=4, timestamp_ms_N=np.arange(5))
    (whole,) = folds(log, LastOut())
    fold = within(whole, np.array([False, False, True, False]))
    assert fold.askers.row_B.tolist() == [0]
    assert fold.askers.histories[0].tolist() == [0, 1]
    assert [items.tolist() for items in fold.targets] == [[2]]
    assert [len(part) for part in (*fold.values, *fold.timestamp_ms)] == [1, 1]
    with pytest.raises(DataError, match="fold last out has nobody to ask"):
        within(whole, np.zeros(4, np.bool_))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("within: {by: colour, target: [a]}\nmodels: {a: {kind: popular}}", "within.by"),
        ("within: {by: tags, target: [a]}\nmodels: {a: {bundle: champion}}", "which a bundle does not give"),
        ("models: {a: {kind: emcdr}}", "key domains is missing"),
    ],
)
def test_wrong_plans_are_refused(text, match, tmp_path):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_plan(tmp_path / "plan.yaml")
