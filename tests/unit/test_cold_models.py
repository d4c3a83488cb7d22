"""DropoutNet and MeLU where they are for: items that nobody took, and people of whom little is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tastemaker.errors import CompatibilityError, ConfigError, DataError
from tastemaker.models import zoo
from tastemaker.models.cold import dropoutnet as dropoutnet_module
from tastemaker.models.cold.attributes import demographics
from tastemaker.models.cold.dropout_towers import DropoutFitConfig, Known, Learner, Towers
from tastemaker.models.cold.dropoutnet import DropoutNet
from tastemaker.models.cold.exposure import exposure, scale_for
from tastemaker.models.cold.melu_network import Adapting, Items, MeluNetwork
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.seeding import seeded
from tastemaker.stages.model_source import ModelSource
from tastemaker.testing.worlds import Tastes
from tastemaker.types import Float32, Query
from tastemaker.users.profile import DEMOGRAPHIC

CONTENT = {"dim": 16, "metadata_dim": 16}
ALS = {"dim": 8, "alpha": 4.0, "iterations": 5}
BPR = {"dim": 8, "epochs": 20, "learning_rate": 0.02, "batch_size": 256, "regularization": 0.0}
DROPOUT_FIT = {"epochs": 15, "batch_users": 32, "batch_items": 64, "learning_rate": 0.003}
MELU = {
    "content": CONTENT, "dim": 8, "hidden": 16, "num_others": 32,
    "fit": {"epochs": 8, "batch_users": 16, "learning_rate": 0.01},
}  # fmt: skip


def dropoutnet(log: Log, base: str = "als") -> Recommender:
    settings = {"kind": base, "config": {"als": ALS, "bpr": BPR}[base]}
    return zoo.fit(
        "dropoutnet", log, {"base": settings, "content": CONTENT, "hidden": 32, "fit": DROPOUT_FIT}
    )


@pytest.fixture(scope="module")
def world() -> Tastes:
    """Every fourth item of each group is in nobody's history."""
    found = Tastes.of(11, items_each=24)
    kept = ~cold_items(found)[found.log.item_N]
    log = replace(
        found.log, user_N=found.log.user_N[kept], item_N=found.log.item_N[kept],
        value_N=found.log.value_N[kept], timestamp_ms_N=found.log.timestamp_ms_N[kept],
    )  # fmt: skip
    return replace(found, log=log)


def cold_items(world: Tastes) -> np.ndarray:
    return np.arange(len(world.group_I)) % 4 == 3


def own_above_others(world: Tastes, score_BI: Float32, group_B: np.ndarray, among_I: np.ndarray) -> float:
    """Mean over people of the chance that an item of the own group scores above one of another: AUC among some items."""
    group_I, found = world.group_I[among_I], []
    for score_I, group in zip(score_BI[:, among_I], group_B, strict=True):
        own, others = score_I[group_I == group], score_I[group_I != group]
        found.append((own[:, None] > others).mean() + 0.5 * (own[:, None] == others).mean())
    return float(np.mean(found))


def few(world: Tastes, num: int) -> Askers:
    """The users as strangers with the first items of their history, of whom nothing else is known."""
    return Askers.strangers([history_L[:num] for history_L in world.log.histories()])


@pytest.mark.parametrize("base", ["als", "bpr"])
def test_dropoutnet_ranks_items_that_nobody_took_and_keeps_the_others(world, base):
    plain, model = zoo.fit(base, world.log, {"als": ALS, "bpr": BPR}[base]), dropoutnet(world.log, base)
    askers, cold_I = Askers.known(world.log), cold_items(world)
    assert own_above_others(world, plain.scores(askers), world.group_U, cold_I) < 0.6
    # Tags tell 8 of 10 items' groups, and one third of the others' by chance: 0.87 of the items.
    assert own_above_others(world, model.scores(askers), world.group_U, cold_I) > 0.75
    # No worse than the base, but for 3 points of the hit rate, half of its standard error over 240 users.
    warm = Filters(allowed_I=~cold_I)
    rates = [
        (one.recommend(askers, 10, warm)[0] == world.last_U[:, None]).any(axis=1).mean()
        for one in (plain, model)
    ]
    assert rates[1] > rates[0] - 0.03


def test_dropoutnet_knows_people_by_attributes_before_their_first_event(world):
    model, cold_I = dropoutnet(world.log), cold_items(world)
    nothing = [np.empty(0, np.int32)] * len(world.group_U)
    told = model.scores(Askers.strangers(nothing, world.log.users))
    untold = model.scores(Askers.strangers(nothing))
    assert own_above_others(world, told, world.group_U, ~cold_I) > 0.75
    assert np.ptp(untold, axis=0).max() < 1e-5  # nobody is told from anybody


def test_dropoutnet_has_vectors_of_items_that_come_later(world):
    model, cold = dropoutnet(world.log), np.flatnonzero(cold_items(world))
    later = world.log.items.take(pa.array(cold))
    np.testing.assert_allclose(model.encode_items(later), model.item_vectors()[cold], atol=1e-4)


def fitted(world: Tastes, **settings: object) -> DropoutNet:
    over_als = {"base": {"kind": "als", "config": ALS}, "content": CONTENT, "hidden": 32, "fit": DROPOUT_FIT}
    model = zoo.fit("dropoutnet", world.log, over_als | settings)
    assert isinstance(model, DropoutNet)
    return model


def test_dropoutnet_shows_new_items_as_often_as_it_is_told(world):
    askers, cold_I = Askers.known(world.log), cold_items(world)
    found = []
    for wanted in (0.2, 0.5, 1.0):
        model = fitted(world, cold_exposure=wanted)
        assert model.config.cold_scale is not None
        # A second fit takes what the first has chosen, and holds nothing out.
        assert model.refit_config() == model.config
        share = cold_I[model.recommend(askers, 20)[0]].mean()
        found.append(float((share / cold_I.sum()) / ((1 - share) / (~cold_I).sum())))
    # Chosen of the 5 items that are held out, found of 18 others. The held-out ones compete with 49 known items, these with 54, for
    # lists of 20: the fewer are wanted, the more that matters. Fits of six seeds give 0.02 to 0.07, 0.20 to 0.41 and 0.86 to 1.19.
    assert found[0] < 0.5 * found[1]
    assert 0.15 < found[1] < 0.5
    assert found[2] == pytest.approx(1, abs=0.25)


def test_the_scale_is_chosen_on_people_without_held_out_items_and_with_their_attributes(world, monkeypatch):
    given = []
    monkeypatch.setattr(
        dropoutnet_module, "scale_for", lambda *those: given.append(those) or scale_for(*those)
    )
    model = fitted(world)
    [(wanted, known_BK, new_BH, num_known)] = given
    taken_I = ~cold_items(world)
    held_I = dropoutnet_module._held_out(taken_I, 0)
    assert (wanted, num_known, held_I.sum()) == (0.5, 49, 5)
    without = [history_L[~held_I[history_L]] for history_L in world.log.histories()]
    assert sum(map(len, without)) < len(world.log)
    asked = Askers.strangers(without, world.log.users)
    _, expected_BK = model.recommend(asked, 20, Filters(allowed_I=taken_I & ~held_I))
    np.testing.assert_allclose(known_BK, expected_BK, atol=1e-5)
    vector_HD = model.encode_items(world.log.items.filter(pa.array(held_I))) / model.config.cold_scale
    np.testing.assert_allclose(new_BH, model.user_vectors(asked) @ vector_HD.T, atol=1e-4)


def test_a_model_without_its_space_refuses_to_encode_items(world):
    model = zoo.fit("content-knn", world.log, {"content": CONTENT})
    tensors = {name: model.tensors()[name] for name in ("vectors", "popular")}
    old = type(model).from_state(model.config_dict(), tensors)  # as the first releases saved it
    with pytest.raises(CompatibilityError, match="a content-knn that was saved without its content space"):
        old.encode_items(world.log.items)


def test_dropoutnet_without_its_users_still_knows_later_items(world):
    model = fitted(world, cold_scale=1.0)
    later = world.log.items.slice(0, 2)
    told = model.with_later(model.later_features(later, model.space.encode(later)))
    asker = Askers.strangers([np.array([told.num_items + 1], np.int32)])
    expected_BD = told.user_vectors(asker)
    assert not np.allclose(expected_BD, model.user_vectors(asker))
    np.testing.assert_array_equal(told.without_users().user_vectors(asker), expected_BD)


def test_the_networks_learn_nothing_from_what_is_held_out():
    draws = np.random.default_rng(0)
    log = Log.of(np.repeat(np.arange(6), 3), draws.integers(0, 8, 18), num_users=6, num_items=8)
    users = Known(draws.normal(size=(6, 2)).astype(np.float32), np.ones((6, 1), np.float32))
    taken = np.unique(log.item_N)
    held_I = np.isin(np.arange(8), taken[:2])

    def losses(changed: np.ndarray) -> list[float]:
        content_IC = np.ones((8, 1), np.float32)
        content_IC[changed] = 9
        items = Known(np.ones((8, 2), np.float32), content_IC)
        with seeded(0):
            towers = Towers.of(2, (1, 1), 4, (1.0, 1.0))
        config = DropoutFitConfig(epochs=2, batch_users=3, batch_items=8)
        return Learner(log, items, users, users, 0.5, held_I).fit(towers, config, 0)

    assert losses(taken[:2]) == losses(taken[:0])
    assert losses(taken[2:3]) != losses(taken[:0])


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_exposure_is_a_ratio_of_how_often_items_stand_in_lists(scale):
    draws = np.random.default_rng(0)
    known_BI, new_BH = draws.random((300, 200), np.float32), draws.random((300, 20), np.float32)
    known_BK = -np.sort(-known_BI, axis=1)[:, :20]
    all_BI = np.concatenate([known_BI, np.float32(scale) * new_BH], axis=1)
    shown_BK = np.argsort(-all_BI, axis=1, kind="stable")[:, :20]
    is_new = shown_BK >= 200
    expected = (is_new.sum() / 20) / ((~is_new).sum() / 200)
    assert exposure(known_BK, new_BH, 200, scale) == pytest.approx(expected)
    if scale == 1.0:
        assert expected == pytest.approx(1, abs=0.1)  # scores of one distribution; some 550 of 6,000 places


@given(
    wanted=st.floats(0.1, 1.0), deviation=st.floats(0.25, 1.0), sign=st.sampled_from([1, -1]), seed=st.integers(0, 99)
)  # fmt: skip
def test_the_scale_that_is_chosen_gives_the_exposure_that_is_wanted(wanted, deviation, sign, seed):
    draws = np.random.default_rng(seed)
    known_BI = sign * draws.gamma(2.0, 1.0, (100, 200)).astype(np.float32)
    new_BH = sign * (deviation**sign * draws.gamma(2.0, 1.0, (100, 20))).astype(np.float32)
    known_BK = -np.sort(-known_BI, axis=1)[:, :20]
    chosen = scale_for(wanted, known_BK, new_BH, 200)
    # 2,000 places, one of which is 0.01 of exposure and more where known items leave it.
    assert exposure(known_BK, new_BH, 200, chosen) == pytest.approx(wanted, abs=0.03)


@given(wanted=st.floats(0.1, 1.0), shift=st.floats(-3.0, 3.0), seed=st.integers(0, 99))
def test_the_scale_comes_near_what_is_wanted_or_is_1_where_scores_are_of_both_signs(wanted, shift, seed):
    draws = np.random.default_rng(seed)
    known_BI = (draws.normal(size=(50, 100)) + shift).astype(np.float32)
    new_BH = (draws.normal(size=(50, 40)) + shift).astype(np.float32)
    known_BK = -np.sort(-known_BI, axis=1)[:, :20]

    def amiss(scale: float) -> float:
        return abs(np.log(max(exposure(known_BK, new_BH, 100, scale), 1e-3) / wanted))

    chosen = scale_for(wanted, known_BK, new_BH, 100)
    best = min(amiss(2.0**octave) for octave in range(-4, 4))
    assert amiss(chosen) <= (best + 1e-6 if chosen != 1 else 2 * best + 1e-6)


@pytest.mark.parametrize(
    ("known_K", "new_H", "reached"),
    [
        ([-1, -2, -3], [-2.5, -9], "0.75 times"),  # 1/2 to 2/3 below a factor of 1.2, above it none
        ([3, 2, 1], [-np.inf, -np.inf], "0 times"),  # none may be shown
        ([0, 0, 0], [0, 0], "0 times"),  # known ones first where nothing tells them apart
    ],
)  # fmt: skip
def test_the_scale_is_1_and_the_log_says_so_where_no_other_helps(caplog, known_K, new_H, reached):
    scale = scale_for(0.5, np.array([known_K], np.float32), np.array([new_H], np.float32), 3)
    assert scale == 1
    assert (
        f"shown {reached} as often as known ones at a factor of 1, where 0.5 times is wanted" in caplog.text
    )


def test_dropoutnet_takes_bases_with_vectors_only(world):
    with pytest.raises(ConfigError, match="'ease' is none of them"):
        zoo.fit("dropoutnet", world.log, {"base": {"kind": "ease"}})


@pytest.mark.parametrize("kind", ["content-knn", "dropoutnet", "melu"])
def test_a_log_without_items_is_refused(world, kind):
    with pytest.raises(DataError, match="no table of them"):
        zoo.fit(kind, replace(world.log, items=None))


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


def test_a_source_tells_its_model_age_and_gender_as_the_request_knows_them(world):
    groups = [f"{('18-24', '35-44', '55-plus')[group]}/f" for group in world.group_U]
    model = dropoutnet(replace(world.log, users=demographics(groups)))
    source = ModelSource("cold", model)
    queries = [
        Query(np.empty(0, np.int32), context={DEMOGRAPHIC: group} if group else {})
        for group in ("18-24/f", "55-plus/f", "")
    ]
    young, old, unknown = source.propose(queries, 10)[0]
    assert (world.group_I[young] == 0).mean() > 0.7
    assert (world.group_I[old] == 2).mean() > 0.7
    expected, _ = model.recommend(Askers.strangers([np.empty(0, np.int32)]), 10)
    np.testing.assert_array_equal(unknown, expected[0])
