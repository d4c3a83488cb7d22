"""Whether a ranker's probabilities and order are those of a world whose truth is known.

Shape letters: N impressions, G requests, K impressions of a request, F features.
"""

import numpy as np
import torch

from tastemaker.evaluation.metrics import expected_calibration_error
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import RankingData
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.ranking_losses import RankingLoss
from tastemaker.models.tables import jagged
from tastemaker.types import Bool, Float32, Float64, Int64

NUM_TAGS = 6
SHAPE = DlrmConfig(
    dense_features=("a", "b", "c"), num_tags=NUM_TAGS, num_years=1, num_categories=1, dropout=0.0
)


def sigmoid(z: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-z)), np.float64)


def impressions(dense_NF: Float64, tag_N: Int64, clicked_N: Bool, slot_N: Int64, size: int) -> RankingData:
    """Requests of `size` impressions each."""
    bags = []
    for start in range(0, len(dense_NF), size):
        tag_K, slot_K = tag_N[start : start + size], slot_N[start : start + size]
        nothing = Bag(np.empty(0, np.int64), np.zeros(size, np.int64), np.empty(0, np.float32))
        names = ("recent_tags", "item_years", "recent_years", "item_categories", "recent_categories")
        bags.append(
            {"item_tags": Bag.singles(tag_K), "position": Bag.singles(slot_K)} | dict.fromkeys(names, nothing)
        )
    offsets_G1 = np.arange(0, len(dense_NF) + 1, size)
    return RankingData(
        dense_NF.astype(np.float32), tuple(bags), clicked_N[:, None].astype(np.float32), offsets_G1
    )


def trained(
    data: RankingData, shape: DlrmConfig, loss: RankingLoss, epochs: int, negative_share: float = 1.0
) -> Dlrm:
    """A ranker after some epochs of plain Adam, its rate falling to zero."""
    torch.manual_seed(0)
    model = Dlrm(shape)
    model.set_normalisation(data.dense_NF)
    model.set_prior(data.label_NT)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    steps = epochs * data.num_batches(16)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for epoch in range(epochs):
        for batch in data.batches(16, epoch=epoch, negative_share=negative_share, hidden_share=0.1):
            logit_BT = model(torch.from_numpy(batch.dense_BF), jagged(batch.bags))
            optimizer.zero_grad()
            loss(logit_BT, torch.from_numpy(batch.label_BT), torch.from_numpy(batch.offsets_G1)).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def logits(model: Dlrm, data: RankingData) -> Float32:
    """As serving computes them: without positions."""
    batch = data.without_positions().batch()
    logit_N: Float32 = model(torch.from_numpy(batch.dense_BF), jagged(batch.bags))[:, 0].numpy()
    return logit_N


def known_world(num_requests: int, seed: int) -> tuple[RankingData, Float64]:
    """Impressions with the true probability of each click: not linear in features, another for each tag."""
    draws = np.random.default_rng(seed)
    dense_NF = draws.normal(size=(num_requests * 40, 3))
    tag_N = draws.integers(0, NUM_TAGS, len(dense_NF))
    a_N, b_N, c_N = dense_NF.T
    truth_N = sigmoid(-2.2 + a_N + np.abs(b_N) + 0.8 * np.tanh(b_N * c_N) + 0.4 * (tag_N - 2.5))
    clicked_N = draws.random(len(truth_N)) < truth_N
    return impressions(dense_NF, tag_N, clicked_N, np.zeros(len(truth_N), np.int64), 40), truth_N


def test_sampled_negatives_are_corrected_for_and_probabilities_are_true() -> None:
    share = 0.05
    training, _ = known_world(1000, seed=1)
    held_out, _ = known_world(150, seed=2)  # not sampled: calibration must see things as they are
    test, truth_N = known_world(1000, seed=3)

    def fitted(told: float) -> tuple[Float32, Float32]:
        """Probabilities of the test's impressions without a calibration, and with one."""
        loss = RankingLoss(("click",), "pointwise", negative_share=told)
        model = trained(training, SHAPE, loss, 8, negative_share=share)
        calibration = Calibration.fit(logits(model, held_out), held_out.clicks)
        logit_N = logits(model, test)
        return Calibration()(logit_N), calibration(logit_N)

    def error(probability_N: Float32) -> float:
        return expected_calibration_error(probability_N, test.clicks)

    raw_N, calibrated_N = fitted(share)
    assert error(calibrated_N) <= 0.02
    assert np.abs(calibrated_N - truth_N).mean() < 0.03  # a constant is off by .18
    assert error(raw_N) <= 0.05
    assert error(fitted(1.0)[0]) > 0.3  # as if nothing had been sampled


def biased_world(num_requests: int, seed: int) -> tuple[RankingData, Float64]:
    """Lists that someone sorted by feature b, which nobody cares for; of the slots, ever fewer are looked at."""
    draws = np.random.default_rng(seed)
    size = 20
    dense_GKF = draws.normal(size=(num_requests, size, 3))
    order_GK = np.argsort(-(dense_GKF[..., 1] + 0.7 * draws.normal(size=(num_requests, size))), axis=1)
    dense_NF = np.take_along_axis(dense_GKF, order_GK[..., None], axis=1).reshape(-1, 3)
    slot_N = np.tile(np.arange(1, size + 1), num_requests)
    utility_N = 0.7 * dense_NF[:, 0] + 0.7 * dense_NF[:, 2] ** 2
    clicked_N = draws.random(len(utility_N)) < 0.8**slot_N * sigmoid(utility_N - 1)
    return impressions(dense_NF, np.zeros(len(utility_N), np.int64), clicked_N, slot_N, size), utility_N


def test_a_ranker_that_knows_positions_is_less_fooled_by_them() -> None:
    training, _ = biased_world(800, seed=1)
    test, utility_N = biased_world(500, seed=2)

    def agreement(*, position: bool) -> float:
        """Mean rank correlation with what users want, within requests."""
        shape = SHAPE.model_copy(update={"position": position})
        score_N = logits(trained(training, shape, RankingLoss(("click",), "pointwise"), 5), test)
        ranks = [np.argsort(np.argsort(v.reshape(-1, 20), axis=1), axis=1) for v in (score_N, utility_N)]
        return float(np.corrcoef(*(rank.ravel() for rank in ranks))[0, 1])

    with_position, without = agreement(position=True), agreement(position=False)
    assert with_position > 0.7
    assert with_position > without + 0.25
