"""A click model is fitted on the ranker's requests, in one rank and without Ray."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.models.calibration import Calibration
from tastemaker.models.ctr.kinds import fit
from tastemaker.models.ctr.ranker import ClickRanker, ranking_fields
from tastemaker.models.rankers import AnyRanker
from tastemaker.types import Candidates
from tastemaker_training.artifacts import load_tensors

# fbgemm warns of kernels that its CPU build lacks, and torch of interfaces that TorchRec still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SIZE = 8
FIELDS = ranking_fields(("told", "noise"), num_tags=4, num_years=3, num_categories=3, context=("hours",))
NETWORK = {"dim": 4, "hidden": [8], "fit": {"epochs": 12, "batch_size": 256, "learning_rate": 0.02}}
TREES = {"num_trees": 30, "min_rows": 5, "num_threads": 1}


def requests(num: int = 240, *, told_hours: bool = True) -> RankingData:
    """Users take the item that `told` says most of, in half of the requests; it has tag 1."""
    random = np.random.default_rng(0)
    candidates, bags, taken = [], [], []
    for request in range(num):
        dense_KF = random.normal(size=(SIZE, 2)).astype(np.float32)
        best, zeros = int(dense_KF[:, 0].argmax()), np.zeros(SIZE, np.float32)
        candidates.append(
            Candidates(
                np.arange(SIZE, dtype=np.int32), zeros, zeros.astype(np.uint32), zeros[:, None], dense_KF
            )
        )
        tag_K = np.where(np.arange(SIZE) == best, 1, 2)
        ones = Bag.singles(np.ones(SIZE, np.int64))
        bags.append(
            dict.fromkeys(
                ("item_years", "item_categories", "recent_tags", "recent_years", "recent_categories"), ones
            )
            | {
                "item_tags": Bag.singles(tag_K),
                "query_hours": Bag.singles(np.full(SIZE, 9 * told_hours)),
                "position": Bag.singles(np.arange(SIZE)),
            }
        )
        taken.append(np.array([best if request % 2 else 99], np.int32))
    return RankingData.build(candidates, bags, taken)


def fitted(
    folder, data: RankingData, kind: str, config: dict, fit: dict | None = None, report=None
) -> dict[str, float]:
    from tastemaker_training.fits.click_ranker import fit_click_ranker
    from tastemaker_training.rows.ranking_file import save_ranking_data

    save_ranking_data(folder / "data", data)
    asked = {"kind": kind, "config": config, "fit": {"held_out_share": 0.2} | (fit or {}), "seed": 1}
    return fit_click_ranker(
        asked | {"data": str(folder / "data"), "folder": str(folder), "fields": FIELDS.model_dump(mode="json")},
        report,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "config"), [("deepfm", NETWORK), ("lambdamart", TREES)])
def test_it_learns_from_the_requests_and_is_calibrated_on_those_held_out(tmp_path, kind, config):
    told = fitted(tmp_path, requests(), kind, config)
    assert told["held_out_ndcg@10"] > 0.95
    assert told["held_out_ece"] < 0.15  # half of the requests have no click at all: 48 requests tell
    ranker = AnyRanker.from_state(
        json.loads((tmp_path / "ranker" / "ranker.json").read_text()),
        load_tensors(tmp_path / "ranker" / "ranker.safetensors"),
    )
    assert isinstance(ranker, ClickRanker)
    calibration = Calibration.from_state(json.loads((tmp_path / "ranker" / "calibration.json").read_text()))
    batch = requests().batch()
    chance_N = calibration(ranker.logits(batch.dense_BF, batch.bags)[:, 0])
    assert chance_N.mean() == pytest.approx(requests().clicks.mean(), abs=0.03)


LR = {"fit": {"epochs": 25, "batch_size": 256, "learning_rate": 0.002, "patience": 25}}


@pytest.mark.parametrize(
    ("kind", "config"), [("lr", LR), ("lambdamart", TREES | {"learning_rate": 0.01, "patience": 30})]
)
def test_a_fit_tells_how_it_does_behind_each_tenth_and_is_the_same_for_it(tmp_path, kind, config):
    told: list[dict[str, float]] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    end = fitted(tmp_path / "a", requests(), kind, config, report=told.append)
    assert [numbers["epoch"] for numbers in told] == list(range(1, 11))
    assert told[-1] == {"epoch": 10} | end
    assert all("held_out_ndcg@10" in numbers for numbers in told)
    assert all(("loss" in numbers) == (kind == "lr") for numbers in told)
    if kind == "lr":  # slow steps: it orders and fits better and better
        losses = [numbers["loss"] for numbers in told]
        assert losses == sorted(losses, reverse=True)
        assert told[0]["held_out_ndcg@10"] < told[-1]["held_out_ndcg@10"]
    assert fitted(tmp_path / "b", requests(), kind, config) == end


@pytest.mark.parametrize(("kind", "config"), [("deepfm", {"fit": {"patience": 1, "epochs": 100, "learning_rate": 0.05}}), ("lambdamart", TREES | {"patience": 1, "num_trees": 200})])  # fmt: skip
def test_a_fit_that_ends_early_has_told_as_often(tmp_path, kind, config):
    told: list[dict[str, float]] = []
    end = fitted(
        tmp_path, requests(), kind, NETWORK | config if kind == "deepfm" else config, report=told.append
    )
    assert [numbers["epoch"] for numbers in told] == list(range(1, 11))
    assert [{**numbers, "epoch": 10} for numbers in told[-5:]] == [{"epoch": 10} | end] * 5


def test_what_is_told_on_the_way_is_of_what_would_be_kept(tmp_path):
    """A network whose step is far too long is best behind its first passes, and that is what stays."""
    told: list[dict[str, float]] = []
    fit = {"epochs": 10, "batch_size": 64, "learning_rate": 3.0, "patience": 10}
    end = fitted(tmp_path, requests(), "deepfm", NETWORK | {"fit": fit}, report=told.append)
    reached = [numbers["held_out_ndcg@10"] for numbers in told]
    assert reached[-1] == end["held_out_ndcg@10"]
    assert len(set(reached)) < len(reached)  # passes that were no better changed nothing


def test_a_share_of_what_was_not_clicked_is_enough(tmp_path):
    told = fitted(tmp_path, requests(), "deepfm", NETWORK, {"negative_share": 0.3})
    assert told["held_out_ndcg@10"] > 0.9
    # Calibration is made on whole requests, whatever share the fit saw.
    assert told["held_out_ece"] < 0.15


def test_requests_that_hide_something_are_as_many_as_the_fit_says():
    from tastemaker_training.fits.click_ranker import Requests
    from tastemaker_training.plan.fit_config import RankerFitConfig

    data, hours = requests(), [field.name for field in FIELDS.categorical].index("query_hours")
    learned = Requests(FIELDS, RankerFitConfig(hidden_share=0.25), 0).learned(data)
    assert (learned.rows.categorical_NC[:, hours] == 0).mean() == pytest.approx(0.25, abs=0.1)  # 240 draws
    asked = Requests(FIELDS, RankerFitConfig(hidden_share=0.25), 0).asked(data)
    assert (asked.rows.categorical_NC[:, hours] == 9).all()
    assert asked.rows.group_N.tolist() == np.repeat(np.arange(240), SIZE).tolist()


def test_how_much_clicks_count_becomes_propensities():
    from tastemaker_training.fits.click_ranker import Requests
    from tastemaker_training.plan.fit_config import RankerFitConfig

    data = requests(10)
    weighed = replace(data, weight_N=np.linspace(1, 4, len(data.clicks)).astype(np.float32))
    learned = Requests(FIELDS, RankerFitConfig(), 0).asked(weighed)
    assert learned.propensity_N[[0, -1]].tolist() == [1.0, 0.25]
    assert Requests(FIELDS, RankerFitConfig(), 0).asked(data).propensity_N is None


def test_weights_below_one_are_on_one_scale_for_what_is_learned_and_what_validates():
    from tastemaker_training.fits.click_ranker import Requests, least_weight
    from tastemaker_training.plan.fit_config import RankerFitConfig

    data = requests(10)
    training, validation = (
        replace(data, weight_N=np.full(len(data.clicks), weight, np.float32)) for weight in (0.25, 0.5)
    )
    found = Requests(FIELDS, RankerFitConfig(), 0, least_weight(training))
    assert set(found.asked(training).propensity_N.tolist()) == {1.0}
    assert set(found.asked(validation).propensity_N.tolist()) == {0.5}


def test_a_network_learned_from_weighted_clicks_stays_the_weighted_chance(tmp_path):
    """Half of the requests have a click, which counts 4 times: its odds are told by `told`, and bounded by what was not clicked."""
    data = requests()
    weight_N = np.where(np.arange(len(data.clicks)) % SIZE == 0, 1.0, 4.0).astype(np.float32)
    from tastemaker_training.fits.click_ranker import Requests, settings
    from tastemaker_training.plan.fit_config import RankerFitConfig

    learned = Requests(FIELDS, RankerFitConfig(hidden_share=0), 0).asked(replace(data, weight_N=weight_N))
    config = settings("lr", {"fit": {"epochs": 60, "learning_rate": 0.1}}, weighs=True)
    model = fit("lr", learned, config)
    assert model.losses[-1] >= 0
    # Logistic regression with an intercept: weighted clicks are as many as its chances, weighed alike, say.
    weight_N = np.where(data.clicks > 0, weight_N, 1.0)
    chance_N = model.predict(learned.rows)
    assert (weight_N * chance_N).sum() == pytest.approx((weight_N * data.clicks).sum(), rel=0.05)
    assert settings("lambdamart", {}, weighs=True) == {}
    kept = settings("lr", {"fit": {"propensity": {"of": "rows"}}}, weighs=True)
    assert kept["fit"]["propensity"]["of"] == "rows"


def test_context_that_the_data_lacks_is_refused(tmp_path):
    with pytest.raises(DataError, match="feature query_hours of the recipe"):
        fitted(tmp_path, requests(told_hours=False), "deepfm", NETWORK)
