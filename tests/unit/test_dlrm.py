import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.models.dlrm import Dlrm, DlrmConfig, dlrm_specs
from tastemaker.models.layers import Experts, ExpertsConfig
from tastemaker.models.ranking_losses import RankingLoss, click_loss, listwise_loss
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


def test_logit_is_one_per_candidate_and_target() -> None:
    four = torch.zeros(4, 2), bags([0], [1, 2], [], [2])
    assert Dlrm(CONFIG)(*four).shape == (4, 1)
    assert Dlrm(CONFIG.model_copy(update={"targets": ("click", "like")}))(*four).shape == (4, 2)


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
    assert logit.tolist() == [[100.0 * 1 + 10.0 * -5 + 0.5 + 1000.0 * -2]]


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
    assert model(torch.tensor([[2.5, 7.0], [99.0, 7.0]]), bags([], [])).tolist() == [[0.5], [5.0]]


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
    scores, labels, offsets = (
        torch.tensor([[0.5], [-1.0]]),
        torch.tensor([[1.0], [0.0]]),
        torch.tensor([0, 2]),
    )
    loss = RankingLoss(("click",), kind)
    padded = loss(torch.cat([scores, torch.tensor([[9.0]])]), torch.cat([labels, torch.zeros(1, 1)]), offsets)
    assert padded.item() == loss(scores, labels, offsets).item()


def test_pointwise_loss_by_hand() -> None:
    # -ln(sigmoid(0)) and -ln(1 - sigmoid(ln 3)) = -ln(1/4)
    loss = click_loss(
        torch.tensor([0.0, np.log(3)]), torch.tensor([1.0, 0.0]), torch.tensor([0, 2]), "pointwise"
    )
    assert loss.item() == pytest.approx((np.log(2) + np.log(4)) / 2, abs=1e-6)


def test_logits_are_of_the_true_odds_where_negatives_were_sampled() -> None:
    """Odds of 1:9 in truth are 1:1.8 among a fifth of the negatives: there the loss of the true logit is least."""
    labels, offsets = torch.tensor([1.0] * 10 + [0.0] * 18), torch.tensor([0, 28])

    def loss(logit: float) -> float:
        return click_loss(torch.full((28,), logit), labels, offsets, "pointwise", negative_share=0.2).item()

    truth = float(np.log(1 / 9))
    assert loss(truth) < min(loss(truth - 0.01), loss(truth + 0.01))


def test_further_targets_by_hand() -> None:
    """Likes: logits 0 and ln 3, known to be 1 and 0, the negative standing for four. Watch: log 3 against log(1 + 7)."""
    nan = float("nan")
    logits = torch.tensor([[0.0, 0.0, np.log(3)], [0.0, np.log(3), 5.0], [0.0, 9.0, 5.0]])
    labels = torch.tensor([[1.0, 1.0, 7.0], [0.0, 0.0, nan], [0.0, nan, nan]])
    loss = RankingLoss(
        ("click", "like", "watch"), "listwise", {"click": 0.0, "like": 2.0}, negative_share=0.25
    )
    like = (1 * np.log(2) + 4 * np.log(4)) / (1 + 4)
    watch = np.log(8 / 3) ** 2
    assert loss(logits, labels, torch.tensor([0, 3])).item() == pytest.approx(2 * like + watch, abs=1e-5)


def test_a_target_that_no_candidate_of_a_batch_knows_counts_nothing() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    loss = RankingLoss(("click", "watch"), "listwise")(logits, labels, torch.tensor([0, 2]))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].tolist() == [0.0, 0.0]


def test_outputs_start_at_what_the_data_has_on_average() -> None:
    model = Dlrm(CONFIG.model_copy(update={"targets": ("click", "like", "watch")}))
    nan = float("nan")
    model.set_prior(np.array([[1, 1, 6], [0, 0, nan], [0, 0, nan], [0, nan, 2]], np.float32))
    # odds of clicks (1 + 1) : (3 + 1), of likes (1 + 1) : (2 + 1); mean of log 7 and log 3
    assert model.wide.bias.tolist() == pytest.approx([np.log(2 / 4), np.log(2 / 3), np.log(21) / 2], abs=1e-6)


def test_experts_by_hand() -> None:
    """Two experts of width 1 give 2x and 3x; the first target's gate is even, the second's is all for the second."""
    experts = Experts(1, ExpertsConfig(num=2, hidden=1), (), num_targets=2, dropout=0.0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.zero_()
        experts.experts.weight.copy_(torch.tensor([[2.0], [3.0]]))
        experts.gates.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 50.0]))
        for head, scale in zip(experts.heads, (10.0, 100.0), strict=True):
            head[0].weight.fill_(scale)
    # (2 + 3) / 2 and 3, of x = 1; both experts are cut at 0 where x is negative
    assert experts(torch.tensor([[1.0], [-1.0]])).tolist() == [[25.0, 300.0], [0.0, 0.0]]


def test_experts_stand_in_for_the_top_and_survive_a_round_trip() -> None:
    config = CONFIG.model_copy(
        update={"targets": ("click", "purchase"), "experts": ExpertsConfig(num=3, hidden=4)}
    )
    model = Dlrm(config).eval()
    read = torch.randn(3, 2), bags([0], [1, 2], [])
    restored = Dlrm.from_state(model.config_dict(), model.tensors())
    assert isinstance(restored.top, Experts)
    assert torch.equal(restored(*read), model(*read))


def test_click_is_always_a_target() -> None:
    with pytest.raises(ConfigError, match="targets that are named once each, click among them"):
        DlrmConfig.parse(CONFIG.model_dump(mode="json") | {"targets": ["like"]}, "ranker")


def test_context_adds_a_table_and_a_vector_for_each_feature() -> None:
    config = CONFIG.model_copy(update={"context": ("hours", "devices")})
    assert [(spec.name, spec.num_rows, spec.features) for spec in dlrm_specs(config)[3:]] == [
        ("hours", 25, ("query_hours",)),
        ("devices", 6, ("query_devices",)),
    ]
    context = {"query_hours": Jagged.from_lists([[5], [0]]), "query_devices": Jagged.from_lists([[1], [1]])}
    logit = Dlrm(config).eval()(torch.zeros(2, 2), bags([0], [0]) | context)
    assert logit[0].item() != logit[1].item()


def test_the_slot_adds_the_same_to_every_candidate() -> None:
    torch.manual_seed(0)
    model = Dlrm(CONFIG.model_copy(update={"position": True})).eval()
    dense, read = torch.randn(2, 2), bags([0], [1, 2])

    def logits(position: int) -> torch.Tensor:
        return model(dense, read | {"position": Jagged.from_lists([[position]] * 2)})

    moved = logits(7) - logits(0)
    assert moved[0].item() != 0
    assert moved[0].item() == pytest.approx(moved[1].item(), abs=1e-6)  # float32


def test_rankers_of_the_previous_release_load() -> None:
    """Config and weights as release 0.1 wrote them."""
    old = {
        "dense_features": ["a", "b"], "num_tags": 3, "num_years": 2, "num_categories": 2, "embedding_dim": 2,
        "bottom_hidden": [4], "top_hidden": [3], "dropout": 0.2,
    }  # fmt: skip
    shapes = {
        "mean_F": (2,), "scale_F": (2,), "wide.weight": (1, 2), "wide.bias": (1,),
        "tables.embedding_bags.tags.weight": (3, 2), "tables.embedding_bags.years.weight": (2, 2),
        "tables.embedding_bags.categories.weight": (2, 2),
        "bottom.0.weight": (4, 2), "bottom.0.bias": (4,), "bottom.3.weight": (2, 4), "bottom.3.bias": (2,),
        "top.0.weight": (3, 23), "top.0.bias": (3,), "top.3.weight": (1, 3), "top.3.bias": (1,),
    }  # fmt: skip
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    model = Dlrm.from_state(old, tensors)
    assert model.config.targets == ("click",)
    # Bottom: x = (0, 0), so 4 ones, then 4 + 1 = 5 each. Bags are empty but for the tag: (1, 1), and 5 + 5 = 10.
    # Top: 5 + 5 + 10 + 1 = 21, three times, + 1; wide: 1.
    assert model(torch.ones(1, 2), bags([0])).tolist() == [[21 * 3 + 1 + 1]]
