import numpy as np
import pytest

from tastemaker.features.ranking_data import Bag, RankingData
from tastemaker.types import Candidates

# fbgemm warns of kernels that its CPU build lacks, and torch of interfaces that TorchRec still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def requests(sizes, seed=0):
    random = np.random.default_rng(seed)
    candidates, bags = [], []
    for size in sizes:
        dense_KF = random.normal(size=(size, 3)).astype(np.float32)
        zeros = np.zeros(size, np.float32)
        candidates.append(
            Candidates(
                np.arange(size, dtype=np.int32), zeros, zeros.astype(np.uint32), zeros[:, None], dense_KF
            )
        )
        lengths = random.integers(0, 4, size)
        values = random.integers(0, 9, lengths.sum())
        bags.append({"tags": Bag(values, lengths, random.random(len(values)).astype(np.float32))})
    return RankingData.build(candidates, bags, [np.array([0, 50], np.int32)] * len(sizes))


def test_requests_come_back_as_they_were_saved(tmp_path):
    from tastemaker_training.ranking_file import load_ranking_data, save_ranking_data

    data = requests([3, 1, 5])
    save_ranking_data(tmp_path / "data.safetensors", data)
    back = load_ranking_data(tmp_path / "data.safetensors")
    assert back.num_missed == data.num_missed == 3
    for name in ("dense_NF", "label_N", "offsets_G1"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    for mine, theirs in zip(back.bags, data.bags, strict=True):
        for part in Bag._fields:
            np.testing.assert_array_equal(getattr(mine["tags"], part), getattr(theirs["tags"], part))


def test_the_curve_is_the_mean_ndcg_of_requests_with_a_positive():
    from tastemaker_training.ranker import _score

    data = requests([2, 2])  # item 0 is each request's positive
    logits = np.array([1.0, 0.0, 0.0, 1.0], np.float32)  # it comes first, then second
    assert _score(logits, data)["held_out_ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
