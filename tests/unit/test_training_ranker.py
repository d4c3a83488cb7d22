import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ranks import main, run_ranks

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.models.dlrm import DlrmConfig
from tastemaker.models.layers import ExpertsConfig
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


def with_likes(data):
    likes = np.where(np.arange(len(data.clicks)) % 2, np.nan, data.clicks)
    return replace(data, label_NT=np.stack([data.clicks, likes], axis=1), targets=("click", "like"))


def test_requests_come_back_as_they_were_saved(tmp_path):
    from tastemaker_training.rows.ranking_file import load_ranking_data, save_ranking_data

    data = with_likes(requests([3, 1, 5]))
    save_ranking_data(tmp_path / "data.safetensors", data)
    back = load_ranking_data(tmp_path / "data.safetensors")
    assert back.num_missed == data.num_missed == 3
    for name in ("dense_NF", "label_NT", "offsets_G1"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    assert back.targets == ("click", "like")
    for mine, theirs in zip(back.bags, data.bags, strict=True):
        for part in Bag._fields:
            np.testing.assert_array_equal(getattr(mine["tags"], part), getattr(theirs["tags"], part))


def test_the_curve_is_the_mean_ndcg_of_requests_with_a_positive():
    from tastemaker_training.fits.ranker import score_held_out

    data = requests([2, 2])  # item 0 is each request's positive
    logits = np.array([1.0, 0.0, 0.0, 1.0], np.float32)  # it comes first, then second
    assert score_held_out(logits, data)["held_out_ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_the_calibration_error_is_that_of_requests_which_the_calibration_has_not_seen():
    from tastemaker.models.calibration import Calibration
    from tastemaker_training.fits.ranker import score_held_out

    data = requests([2] * 400)
    random = np.random.default_rng(0)
    logits = random.normal(size=800).astype(np.float32)  # say nothing of the labels, half of which are 1
    assert score_held_out(logits, data)["held_out_ece"] < 0.1  # 15 bins of 53: deviations of .07 each at most
    halves = np.repeat(np.arange(400) % 2 == 0, 2)
    logits[halves] = np.where(data.clicks[halves] > 0, 3, -3)  # one half's calibration is wrong for the other
    sure = Calibration.fit(logits[halves], data.clicks[halves])(np.float32([3.0]))[0]
    assert sure > 0.99
    assert score_held_out(logits, data)["held_out_ece"] > 0.3


def test_no_calibration_error_of_a_single_request():
    from tastemaker_training.fits.ranker import score_held_out

    assert score_held_out(np.zeros(3, np.float32), requests([3])).keys() == {"held_out_ndcg@10"}


def test_a_recipe_that_asks_for_what_the_data_lacks_is_refused_before_the_first_step(tmp_path):
    from tastemaker_training.fits.ranker import ranker_data
    from tastemaker_training.plan.fit_config import RankerFitConfig
    from tastemaker_training.rows.ranking_file import save_ranking_data

    save_ranking_data(tmp_path / "data", requests([3, 1, 5]))
    shape = DlrmConfig(dense_features=("a", "b", "c"), num_tags=9, num_years=1, num_categories=1)
    fit = RankerFitConfig(held_out_share=0.4)
    training, held_out = ranker_data(tmp_path / "data", fit, shape, 0)
    assert (len(training), len(held_out)) == (2, 1)
    for missing, message in (
        ({"targets": ("click", "like")}, "target like of the recipe"),
        ({"context": ("hours",)}, "feature query_hours of the recipe"),
        ({"position": True}, "feature position of the recipe"),
    ):
        with pytest.raises(DataError, match=message):
            ranker_data(tmp_path / "data", fit, shape.model_copy(update=missing), 0)


def rank(folder: str, fit: dict[str, object], model: dict[str, object]) -> None:
    """The ranker's loop on one rank, its reports left out."""
    from tastemaker_training.fits import ranker

    ranker.report_progress = lambda metrics: None
    ranker.ranker_loop({"data": f"{folder}/data", "fit": fit, "model": model, "seed": 1, "folder": folder})


def curves(folder: str, shares: list[float], fit: dict[str, object], model: dict[str, object]) -> None:
    """The ranker's loop on one rank for each share of hidden records; the last reports go into a file."""
    from tastemaker_training.fits import ranker

    told: list[dict[str, object]] = []
    ranker.report_progress = told.append
    last = []
    for share in shares:
        own = Path(folder, str(share))
        own.mkdir()
        hiding = fit | {"hidden_records": share}
        ranker.ranker_loop(
            {"data": f"{folder}/data", "fit": hiding, "model": model, "seed": 1, "folder": str(own)}
        )
        last.append(told[-1])
    Path(folder, "curves.json").write_text(json.dumps(last))


def last_reports(folder, shares):
    """What the ranker tells at the end for each share of hidden records, where record and one source say all together, and another source a little alone."""
    from tastemaker_training.rows.ranking_file import save_ranking_data

    built, random = requests([6] * 200), np.random.default_rng(5)
    told, misled = random.normal(size=(2, len(built.clicks)))
    dense = [2 * built.clicks + told, misled, built.clicks + misled, 0 * misled]
    nothing = Bag(np.empty(0, np.int64), np.zeros(6, np.int64), np.empty(0, np.float32))
    names = ("item_tags", "recent_tags", "item_years", "recent_years", "item_categories", "recent_categories")
    bags = (dict.fromkeys(names, nothing),) * 200
    save_ranking_data(
        folder / "data", replace(built, dense_NF=np.stack(dense, axis=1).astype(np.float32), bags=bags)
    )
    model = DlrmConfig(
        dense_features=("als_z", "ease_z", "taste_share", "novelty"), num_tags=9, num_years=1, num_categories=1,
        embedding_dim=4,
    ).model_dump(mode="json")  # fmt: skip
    fit = {"epochs": 20, "held_out_share": 0.3, "optimizer": {"dense_learning_rate": 0.01}}
    run_ranks(__file__, 1, "curves", folder=str(folder), shares=shares, fit=fit, model=model)
    return json.loads((folder / "curves.json").read_text())


def test_who_learned_with_hidden_records_ranks_better_without_them(tmp_path):
    never, sometimes = last_reports(tmp_path, [0.0, 0.5])
    # A record less what EASE says is the click. Without one, EASE says nothing, and what counted against it misleads.
    for found in (never, sometimes):
        assert found["held_out_ndcg@10"] > 0.95
    unknown = "held_out_ndcg@10_without_records"
    assert sometimes[unknown] > never[unknown] + 0.1


def test_two_ranks_train_targets_experts_context_and_position_from_sampled_negatives(tmp_path):
    from tastemaker.models.calibration import Calibration
    from tastemaker.models.dlrm import Dlrm
    from tastemaker_training.artifacts import load_model
    from tastemaker_training.rows.ranking_file import save_ranking_data

    data = with_likes(requests([6] * 60))
    nothing = Bag(np.empty(0, np.int64), np.zeros(6, np.int64), np.empty(0, np.float32))
    names = ("item_tags", "recent_tags", "item_years", "recent_years", "item_categories", "recent_categories")
    context = {"position": Bag.singles(np.arange(1, 7)), "query_hours": Bag.singles(np.full(6, 20))}
    bags = tuple(dict.fromkeys(names, nothing) | {"item_tags": own["tags"]} | context for own in data.bags)
    likes = np.where(data.request_index % 3 == 0, 0, data.clicks)
    labels = np.stack([data.clicks, likes], axis=1).astype(np.float32)
    save_ranking_data(tmp_path / "data", replace(data, bags=bags, label_NT=labels))
    model = DlrmConfig(
        dense_features=("a", "b", "c"), num_tags=9, num_years=1, num_categories=1, embedding_dim=4,
        targets=("like", "click"), context=("hours",), position=True, experts=ExpertsConfig(num=2, hidden=4),
    ).model_dump(mode="json")  # fmt: skip
    fit = {
        "loss": "pointwise",
        "epochs": 2,
        "negative_share": 0.5,
        "loss_weights": {"like": 0.5},
        "held_out_share": 0.3,
    }
    run_ranks(__file__, 2, "rank", folder=str(tmp_path), fit=fit, model=model)
    loaded = load_model(tmp_path / "ranker", "ranker", Dlrm)
    assert loaded.config_dict() == model
    calibration = Calibration.from_state(json.loads((tmp_path / "ranker" / "calibration.json").read_text()))
    assert calibration.others.keys() == {"like"}


if __name__ == "__main__":
    main(globals())
