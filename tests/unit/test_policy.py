"""What a variant may change about its stages, and that nothing else passes."""

import numpy as np
import pytest

from tastemaker.errors import ConfigError
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.experiments.store import ExperimentStore
from tastemaker.stages.policy import StagePolicy, merged, policy_of, policy_text
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.mmr import MmrConfig
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Query


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"until": "lunch"}, "until"),
        ({"reranking": {"mmr": {"weight": 2}}}, "mmr.weight"),
        ({"reranking": {"mmr": {"lambda": 0.5}}}, "unknown key mmr.lambda.*one of: head, places, weight"),
        ({"reranking": {"colour": None}}, "unknown key colour"),
        ({"reranking": {"rules": [{"kind": "hide", "match": {"tags": ["x"]}}]}}, "rules.0"),
        ({"reranking": {"rules": [{"kind": "block", "match": {}}]}}, "rules.0"),
        ({"source_weights": {"popular": -1}}, "source_weights.popular"),
    ],
)
def test_an_experiment_with_a_wrong_policy_is_refused_before_anything_is_written(
    policy: dict[str, object], named: str
) -> None:
    experiment = Experiment(
        name="e", hypothesis="h", salt="s", allocation=Fixed(weights=(0.5, 0.5)),
        variants=(Variant(name="a", alias="champion"), Variant(name="b", alias="champion", policy=policy)),
    )  # fmt: skip
    nowhere = ExperimentStore(None, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"policy of variant b.*{named}"):
        nowhere.create(experiment)


def test_equal_policies_have_one_text_and_empty_ones_none() -> None:
    assert policy_text(None) == policy_text({}) == policy_text({"until": "rerank"}) == ""
    one = policy_text({"source_weights": {"b": 1.0, "a": 2.0}, "until": "rank"})
    other = policy_text({"until": "rank", "source_weights": {"a": 2.0, "b": 1.0}})
    assert one == other
    assert policy_of(one) == StagePolicy(until="rank", source_weights={"a": 2.0, "b": 1.0})


def test_only_what_it_names_differs_from_the_bundles_config() -> None:
    bundle = RerankingConfig(keep_top=1, mmr=MmrConfig(weight=0.4, head=20))
    changed = StagePolicy.of({"reranking": {"mmr": {"weight": 0.9}, "spread": {}, "category_cap": None}})
    found = changed.reranking_over(bundle)
    assert found.mmr == MmrConfig(weight=0.9, head=20)
    assert (found.keep_top, found.category_cap) == (1, None)
    assert found.spread is not None
    assert StagePolicy().reranking_over(bundle) is bundle


def test_merging_leaves_its_inputs_alone() -> None:
    config, changes = {"a": {"b": 1}, "rules": [1]}, {"a": {"c": 2}, "rules": [2]}
    assert merged(config, changes) == {"a": {"b": 1, "c": 2}, "rules": [1, 2]}
    assert (config, changes) == ({"a": {"b": 1}, "rules": [1]}, {"a": {"c": 2}, "rules": [2]})


def test_requests_of_one_batch_follow_their_own_policies() -> None:
    vectors = np.tile(np.eye(2, dtype=np.float32)[0], (6, 1))
    stage = Reranking(RerankingItems(vectors, np.array([1, 1, 1, 1, 2, 2], np.int32)))
    score = np.linspace(0.9, 0.1, 6).astype(np.float32)
    ranked = Candidates(np.arange(6, dtype=np.int32), score, np.ones(6, np.uint32), score[:, None])
    apart = policy_text({"reranking": {"keep_top": 1, "mmr": None, "spread": {"apart": 1}}})
    usual = Query(np.empty(0, np.int32), k=6)
    spread = Query(np.empty(0, np.int32), k=6, policy=apart)
    orders = [found.item_index.tolist() for found in stage([usual, spread, usual], [ranked] * 3)]
    assert orders == [[0, 1, 2, 3, 4, 5], [0, 4, 1, 5, 2, 3], [0, 1, 2, 3, 4, 5]]
