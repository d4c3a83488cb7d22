"""Clicks that count by slot and popularity: from the recipe to the loss."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tastemaker.config import Settings
from tastemaker.data.splits import Histories
from tastemaker.errors import ConfigError
from tastemaker.features.ranking_batch import POSITION, Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.home import Home
from tastemaker.models.ranking_losses import RankingLoss, listwise_loss
from tastemaker.offpolicy.examination import Examination
from tastemaker.types import Candidates
from tastemaker_training.plan.fit_config import ClickWeightsConfig, RankerFitConfig
from tastemaker_training.rows.ranking_file import load_ranking_data, save_ranking_data
from tastemaker_training.sources.click_weights import ClickWeights

TRUE_K = np.array([1.0, 0.5, 0.25])


def requests(sizes: list[int], taken: int = 0) -> RankingData:
    candidates, bags = [], []
    for size in sizes:
        zeros = np.zeros(size, np.float32)
        dense_KF = np.random.default_rng(size).normal(size=(size, 2)).astype(np.float32)
        candidates.append(
            Candidates(
                np.arange(size, dtype=np.int32), zeros, zeros.astype(np.uint32), zeros[:, None], dense_KF
            )
        )
        bags.append({POSITION: Bag.singles(np.arange(1, size + 1))})
    return RankingData.build(candidates, bags, [np.array([taken], np.int32)] * len(sizes))


def test_weights_go_with_their_candidates(tmp_path: Path) -> None:
    data = requests([2, 3, 1])
    weighed = replace(data, weight_N=np.arange(6, dtype=np.float32))
    assert weighed.take([2, 0]).weight_N is not None
    assert weighed.take([2, 0]).weight_N.tolist() == [5, 0, 1]  # type: ignore[union-attr]
    padded = weighed.batch(num_rows=8).weight_B
    assert padded is not None
    assert padded.tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert data.batch().weight_B is None
    save_ranking_data(tmp_path / "data.safetensors", weighed)
    back = load_ranking_data(tmp_path / "data.safetensors").weight_N
    assert back is not None
    assert back.tolist() == [0, 1, 2, 3, 4, 5]
    save_ranking_data(tmp_path / "plain.safetensors", data)
    assert load_ranking_data(tmp_path / "plain.safetensors").weight_N is None


def test_a_weighted_click_counts_so_often() -> None:
    # Two requests with one click each and losses ln 2 and ln(1 + e): weights 3 and 1 make (3 ln 2 + ln(1 + e)) / 4.
    logit_BT = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    label_BT, offsets = torch.tensor([[1.0], [0.0], [1.0], [0.0]]), torch.tensor([0, 2, 4])
    loss = RankingLoss(("click",), "listwise")
    found = loss(logit_BT, label_BT, offsets, torch.tensor([3.0, 9.0, 1.0, 9.0]))
    by_hand = (3 * np.log(2) + np.log(1 + np.e)) / 4
    assert found.item() == pytest.approx(by_hand, rel=1e-6)
    same = loss(logit_BT, label_BT, offsets, torch.full((4,), 0.2))
    assert same.item() == pytest.approx(loss(logit_BT, label_BT, offsets).item(), rel=1e-6)


def test_expected_weighted_clicks_are_interest() -> None:
    # The position-based model: a click of weight 1 / examination has the interest for its expectation, in any slot.
    interest = torch.tensor([0.3, 0.8, 0.5])
    told = Examination(TRUE_K, TRUE_K, TRUE_K, "randomised")
    weight = torch.from_numpy(told.weights(np.array([1, 2, 3])))
    expected = weight * torch.from_numpy(TRUE_K).float() * interest
    logit, offsets = torch.tensor([0.1, -0.4, 0.9]), torch.tensor([0, 3])
    assert listwise_loss(logit, expected, offsets).item() == pytest.approx(
        listwise_loss(logit, interest, offsets).item(), rel=1e-6
    )


def test_a_file_weighs_by_slot_and_popularity_by_item(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    file = tmp_path / "examination.json"
    Examination(TRUE_K, TRUE_K, TRUE_K, "randomised").save(file)
    config = ClickWeightsConfig(position="file", file=str(file), popularity=1.0, least_examination=0.3)
    split = split_with([0, 0, 0, 1])
    found = ClickWeights.of(Settings(), home, config, split, 3)
    assert found is not None
    data = requests([3])
    weight_N = found(data, np.array([0, 1, 2], np.int32), np.array([1, 2, 3]))
    popularity = np.array([1 / 4, 1 / 2, 1.0])
    assert weight_N == pytest.approx([1.0, 2.0, 1 / 0.3] * popularity / popularity.mean(), rel=1e-6)
    assert found.key["examination"] == TRUE_K.tolist()
    assert ClickWeights.of(Settings(), home, ClickWeightsConfig(), split, 3) is None


def split_with(items: list[int]) -> Any:
    class Held:
        train = Histories(np.array([0, len(items)]), np.array(items, np.int32), None, None, None)

    return Held()


def test_em_reads_the_requests_themselves() -> None:
    luck = np.random.default_rng(0)
    data = requests([3] * 3000)
    dense_NF = luck.normal(size=(9000, 2)).astype(np.float32)
    interest_N = 1 / (1 + np.exp(-2 * dense_NF[:, 0]))
    slot_N = np.tile(np.arange(1, 4), 3000)
    click_N = (luck.random(9000) < TRUE_K[slot_N - 1] * interest_N).astype(np.float32)
    data = replace(data, dense_NF=dense_NF, label_NT=click_N[:, None])
    weigh = ClickWeights(ClickWeightsConfig(position="em"), np.zeros(3))
    weight_N = weigh(data, np.zeros(9000, np.int32), slot_N)
    assert weight_N[:3] == pytest.approx(1 / TRUE_K, rel=0.15)
    assert len(np.unique(weight_N)) == 3


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"loss": "pointwise", "click_weights": {"popularity": 0.5}}, "click_weights go with loss: listwise"),
        ({"click_weights": {"position": "file"}}, "position: file needs file"),
        ({"click_weights": {"position": "em", "file": "x.json"}}, "only that does"),
        ({"click_weights": {"popularity": 2}}, "popularity"),
        ({"click_weights": {"position": "guess"}}, "position"),
    ],
)
def test_recipes_that_ask_for_what_is_not(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        RankerFitConfig.parse(fields, "ranker.fit")
