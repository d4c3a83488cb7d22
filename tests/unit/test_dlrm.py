from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig, dlrm_specs, listwise_loss, ranking_loss
from tastemaker.models.tables import Jagged

CONFIG = DlrmConfig(dense_features=("a", "b"), num_tags=3, num_years=2, num_categories=2, embedding_dim=2)
FEATURES = ("item_tags", "recent_tags", "item_years", "recent_years", "item_categories", "recent_categories")


def bags(*tags: list[int]) -> dict[str, Jagged]:
    empty = Jagged.from_lists([[] for _ in tags])
    return dict.fromkeys(FEATURES, empty) | {"item_tags": Jagged.from_lists(list(tags))}


def test_candidate_and_history_read_the_same_rows() -> None:
    assert [(spec.name, spec.num_rows, spec.features) for spec in dlrm_specs(CONFIG)] == [
        ("tags", 3, ("item_tags", "recent_tags")),
        ("years", 2, ("item_years", "recent_years")),
        ("categories", 2, ("item_categories", "recent_categories")),
    ]


def test_logit_is_one_per_candidate() -> None:
    assert Dlrm(CONFIG)(torch.zeros(4, 2), bags([0], [1, 2], [], [2])).shape == (4,)


def test_interactions_are_the_dot_products_of_all_pairs() -> None:
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    model = Dlrm(CONFIG)
    model.pairs_2P = torch.tril_indices(3, 3, offset=-1)
    # (1,0): 3*1+4*2 = 11; (2,0): 5*1+6*2 = 17; (2,1): 5*3+6*4 = 39
    assert model.interact(vectors).tolist() == [[11.0, 17.0, 39.0]]


def test_forward_by_hand() -> None:
    """Bottom gives (1, -2); the item's tags sum to (3, 4): their product 3 - 8 = -5 is the only one that is not 0."""
    config = CONFIG.model_copy(update={"bottom_hidden": (), "top_hidden": (), "dropout": 0.0})
    model = Dlrm(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bottom[0].weight.copy_(torch.eye(2))
        model.get_parameter("tables.embedding_bags.tags.weight").copy_(
            torch.tensor([[1.0, 1.0], [2.0, 3.0], [9.0, 9.0]])
        )
        model.top[0].weight[0, 2:] = 10.0  # behind the bottom's output: the 21 products of 7 vectors
        model.top[0].weight[0, 0] = 100.0
        model.top[0].bias.fill_(0.5)
        model.wide.weight.copy_(torch.tensor([[0.0, 1000.0]]))
    logit = model(torch.tensor([[1.0, -2.0]]), bags([0, 1]))
    assert logit.tolist() == [100.0 * 1 + 10.0 * -5 + 0.5 + 1000.0 * -2]


def test_dense_features_are_standardised_and_limited() -> None:
    config = CONFIG.model_copy(update={"bottom_hidden": (), "top_hidden": ()})
    model = Dlrm(config).eval()
    model.set_normalisation(np.array([[1.0, 7.0], [3.0, 7.0]], np.float32))  # means 2, 7; deviations 1, 0
    assert model.mean_F.tolist() == [2.0, 7.0]
    assert model.scale_F.tolist() == [1.0, 1.0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.wide.weight.copy_(torch.tensor([[1.0, 0.0]]))
    assert model(torch.tensor([[2.5, 7.0], [99.0, 7.0]]), bags([], [])).tolist() == [0.5, 5.0]


def test_restored_model_gives_the_same_logits() -> None:
    model = Dlrm(CONFIG).eval()
    model.set_normalisation(np.array([[1.0, 2.0], [3.0, 8.0]], np.float32))
    dense, read = torch.randn(3, 2), bags([0], [1, 2], [])
    restored = Dlrm.from_state(model.config_dict(), model.tensors())
    assert torch.equal(restored(dense, read), model(dense, read))


def test_weights_of_another_shape_are_refused() -> None:
    other = CONFIG.model_copy(update={"num_tags": 4})
    with pytest.raises(CompatibilityError, match=r"tags\.weight.*use the weights trained with this config"):
        Dlrm.from_state(CONFIG.model_dump(mode="json"), Dlrm(other).tensors())


def test_listwise_loss_by_hand() -> None:
    scores = torch.tensor([1.0, 0.0, 0.0, 2.0, 5.0])
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    first = -np.log(np.e / (np.e + 2))
    second = -np.log(np.exp(5) / (np.exp(2) + np.exp(5)))
    loss = listwise_loss(scores, labels, torch.tensor([0, 3, 5]))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)  # float32


def test_requests_without_positives_add_nothing() -> None:
    scores, offsets = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 1, 3])
    assert listwise_loss(scores, torch.zeros(3), offsets).item() == 0.0
    alone = listwise_loss(scores[1:], torch.tensor([1.0, 0.0]), torch.tensor([0, 2]))
    assert listwise_loss(scores, torch.tensor([0.0, 1.0, 0.0]), offsets).item() == pytest.approx(
        alone.item(), abs=1e-7
    )


@given(shift=st.floats(-50, 50))
@settings(max_examples=20)
def test_listwise_loss_ignores_what_a_request_has_in_common(shift: float) -> None:
    scores, labels, offsets = (
        torch.tensor([0.5, -1.0, 2.0]),
        torch.tensor([0.0, 1.0, 0.0]),
        torch.tensor([0, 3]),
    )
    moved = listwise_loss(scores + shift, labels, offsets)
    assert moved.item() == pytest.approx(
        listwise_loss(scores, labels, offsets).item(), abs=1e-4
    )  # float32 at 50


@pytest.mark.parametrize("kind", ["listwise", "pointwise"])
def test_padding_counts_nothing(kind: str) -> None:
    scores, labels, offsets = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.0]), torch.tensor([0, 2])
    padded = ranking_loss(
        torch.cat([scores, torch.tensor([9.0])]), torch.cat([labels, torch.zeros(1)]), offsets, kind
    )
    assert padded.item() == ranking_loss(scores, labels, offsets, kind).item()


def test_pointwise_loss_by_hand() -> None:
    # -ln(sigmoid(0)) and -ln(1 - sigmoid(ln 3)) = -ln(1/4)
    loss = ranking_loss(
        torch.tensor([0.0, np.log(3)]), torch.tensor([1.0, 0.0]), torch.tensor([0, 2]), "pointwise"
    )
    assert loss.item() == pytest.approx((np.log(2) + np.log(4)) / 2, abs=1e-6)


def test_calibration_finds_the_scaling_that_made_the_labels() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 200_000).astype(np.float32)
    labels = generator.random(len(logits)) < 1 / (1 + np.exp(-(0.5 * logits - 3)))
    fitted = Calibration.fit(logits, labels)
    # standard errors at 200,000 rows of 5-8% positives are near .005 and .012
    assert (fitted.slope, fitted.intercept) == (pytest.approx(0.5, abs=0.02), pytest.approx(-3, abs=0.05))
    assert fitted(logits).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_calibration_never_turns_the_order_round() -> None:
    worse_than_chance = Calibration.fit(
        np.array([3.0, 2.0, -2.0, -3.0], np.float32), np.array([0, 0, 1, 1], np.float32)
    )
    assert worse_than_chance.slope > 0


def test_calibration_needs_both_labels() -> None:
    with pytest.raises(DataError, match=r"0 positives, 2 negatives.*hold out more requests"):
        Calibration.fit(np.array([1.0, 2.0], np.float32), np.zeros(2, np.float32))


def test_calibration_survives_its_round_trip(tmp_path: Path) -> None:
    assert Calibration.from_state(Calibration(slope=2.0, intercept=-1.5).config_dict()) == Calibration(
        slope=2.0, intercept=-1.5
    )
