"""MeLU where it is for: items that nobody took, and people of whom little is known; its network by hand."""

import numpy as np
import pytest
import torch
from cold_world import CONTENT, cold_items, cold_tastes, few, own_above_others
from torch.utils._python_dispatch import TorchDispatchMode

from tastemaker.models import zoo
from tastemaker.models.cold.melu_network import Adapting, Items, MeluNetwork
from tastemaker.models.recommender import Recommender
from tastemaker.testing.worlds import Tastes

MELU = {
    "content": CONTENT, "dim": 8, "hidden": 16, "num_others": 32,
    "fit": {"epochs": 8, "batch_users": 16, "learning_rate": 0.01},
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Tastes:
    return cold_tastes()


@pytest.fixture(scope="module")
def melu(world) -> Recommender:
    return zoo.fit("melu", world.log, MELU)


def strangers_hit(world: Tastes, model: Recommender, num: int) -> float:
    """Share of strangers with so many items whose own group has the most of the list."""
    item_BK, _ = model.recommend(few(world, num), 10)
    return float((world.group_I[item_BK] == world.group_U[:, None]).mean())


def test_melu_adapts_to_a_few_items_of_a_stranger(world, melu):
    still = zoo.fit("melu", world.log, MELU | {"steps": 0})
    popular = zoo.fit("popular", world.log)
    shares = [strangers_hit(world, melu, num) for num in (0, 1, 3, 5)]
    assert shares[0] < 0.45  # a third by chance
    assert shares[1] > 0.55
    assert shares[3] > 0.75
    assert shares[0] < shares[1] < shares[2]
    for num in (1, 3, 5):
        rest = max(strangers_hit(world, still, num), strangers_hit(world, popular, num))
        assert strangers_hit(world, melu, num) > rest + 0.1


def test_melu_ranks_items_that_nobody_took(world, melu):
    score_BI = melu.scores(few(world, 5))
    assert own_above_others(world, score_BI, world.group_U, cold_items(world)) > 0.7


def test_melu_of_first_order_learns_as_well(world):
    cheap = zoo.fit("melu", world.log, MELU | {"first_order": True})
    assert strangers_hit(world, cheap, 5) > 0.7


@pytest.fixture
def network() -> tuple[MeluNetwork, torch.Tensor, Items, torch.Tensor, Items]:
    """A network, 3 people, 2 items each (the last person has one), and 4 others."""
    torch.manual_seed(0)
    taken = Items(torch.randn(3, 2, 5), torch.randn(3, 2))
    is_taken = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    return MeluNetwork(2, 5, 7), torch.randn(3, 5), taken, is_taken, Items(torch.randn(4, 5), torch.randn(4))


@pytest.mark.parametrize("first_order", [False, True])
def test_all_people_together_adapt_as_each_alone_step_by_step(network, first_order):
    net, person_BE, taken, is_taken, others = network
    found = net.adapted(person_BE, taken, is_taken, others, Adapting(2, 0.3, first_order))
    total = {name: weight.square().sum() for name, weight in found.items()}
    outer = torch.autograd.grad(sum(total.values()), list(net.decision.parameters()))
    expected = 0.0
    for b, person_E in enumerate(person_BE):
        weights = net.shared()
        for _ in range(2):
            loss = net.loss(weights, person_E, Items(taken.embedded[b], taken.prior[b]), is_taken[b], others)
            slopes = torch.autograd.grad(
                loss, list(weights.values()), create_graph=not first_order, retain_graph=True
            )
            weights = {
                name: value - 0.3 * slope
                for (name, value), slope in zip(weights.items(), slopes, strict=True)
            }
        for name, weight in weights.items():
            torch.testing.assert_close(found[name][b], weight)
        expected = expected + sum(weight.square().sum() for weight in weights.values())
    for mine, theirs in zip(
        outer, torch.autograd.grad(expected, list(net.decision.parameters())), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.untyped_storage().nbytes() // made.element_size())
        return made


def test_items_are_scored_in_steps_by_each_persons_own_layers(network, monkeypatch):
    net, person_BE, taken, is_taken, others = network
    monkeypatch.setattr("tastemaker.models.cold.melu_network._HIDDEN_AT_ONCE", 3 * 7 * 50)
    items = Items(torch.randn(1021, 5), torch.randn(1021))  # 20 steps and a rest
    with torch.no_grad():
        weights = net.adapted(person_BE, taken, is_taken, others, Adapting(2, 0.3))
        with Largest() as largest:
            found_BQ = net.scores_of_each(weights, person_BE, items)
        for b, person_E in enumerate(person_BE):
            own = {name: weight[b] for name, weight in weights.items()}
            torch.testing.assert_close(found_BQ[b], net.scores(own, person_E, items))
    # The answer and the items given: no tensor of people by items by units.
    assert largest.numbers <= 1021 * 5


def test_the_loss_of_a_person_by_hand(network):
    net, person_BE, _, _, _ = network
    flat = {name: torch.zeros_like(weight) for name, weight in net.shared().items()}
    # Scores are the priors: log 2 of the taken, 0 of each of three others; its chance among them is 2 / (2 + 3).
    taken = Items(torch.zeros(2, 5), torch.tensor([2.0, 9.0]).log())
    others = Items(torch.zeros(3, 5), torch.zeros(3))
    loss = net.loss(flat, person_BE[0], taken, torch.tensor([1.0, 0.0]), others)
    assert float(loss) == pytest.approx(np.log(5 / 2), abs=1e-6)
    nothing = net.loss(flat, person_BE[0], taken, torch.zeros(2), others)
    assert float(nothing) == 0
