"""What is drawn against a batch's targets, and what that does to a loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ConfigError, DataError
from tastemaker.features.frequency import StreamingFrequency
from tastemaker.features.negatives import SHARED, NegativeSampler, NegativesConfig
from tastemaker.features.rejected import Rejected
from tastemaker.models.losses import sampled_softmax_loss
from tastemaker.models.tables import Jagged, PlainTables, TableSpec

COUNT = np.array([81, 16, 1, 0])  # to the power of 3/4: 27, 8, 1, 0
SHARE = np.array([27, 8, 1, 0]) / 36


def sampler(count=COUNT, **config) -> NegativeSampler:
    return NegativeSampler(count, NegativesConfig(**config))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hard": 0.3}, "uniform, popularity, hard and rejected must add up to 1, add up to 1.3"),
        (
            {"in_batch": False, "popularity": 0.0, "hard": 1.0},
            "without in_batch at least one uniform or popularity",
        ),
        ({"in_batch": False, "num_sampled": 0}, "without in_batch at least one uniform or popularity"),
        ({"in_batch": False, "memory_batches": 2}, "are of in-batch targets: set in_batch"),
        ({"in_batch": False, "frequency": "streaming"}, "are of in-batch targets: set in_batch"),
    ],
)
def test_configs_that_make_no_sense_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        NegativesConfig.parse(config, "two_tower.negatives")


@given(st.integers(0, 2000), st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any))
def test_kinds_get_their_shares_of_whole_items(num_sampled, parts):
    shares = dict(
        zip(("uniform", "popularity", "hard", "rejected"), np.array(parts) / sum(parts), strict=True)
    )
    numbers = NegativesConfig(num_sampled=num_sampled, **{k: float(v) for k, v in shares.items()}).numbers
    assert sum(numbers.values()) == num_sampled
    assert all(abs(numbers[kind] - share * num_sampled) < 1 for kind, share in shares.items())


def test_popularity_by_hand():
    item, log_q, owner = sampler(num_sampled=20_000).draw(generator(), np.array([0, 1, 0]))
    assert item[:3].tolist() == [0, 1, 0]
    np.testing.assert_allclose(np.exp(log_q[:3]), [3 * 81 / 98, 3 * 16 / 98, 3 * 81 / 98], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_q[3:]), 20_000 * SHARE[item[3:]], rtol=1e-5)
    # four standard errors of a share of 20,000
    np.testing.assert_allclose(np.bincount(item[3:], minlength=4) / 20_000, SHARE, atol=0.0125)
    assert (owner == SHARED).all()


def test_uniform_reaches_items_that_nobody_took():
    item, log_q, _ = sampler(num_sampled=20_000, uniform=1.0, popularity=0.0).draw(generator(), np.array([0]))
    np.testing.assert_allclose(np.bincount(item[1:], minlength=4) / 20_000, 0.25, atol=0.0125)
    np.testing.assert_allclose(log_q[1:], np.log(5000), rtol=1e-6)


def test_the_classic_mix_by_hand():
    neighbours = np.array([[1, 2], [2, 3], [0, 3], [0, 1]], np.int32)
    config = {"num_sampled": 10, "popularity": 0.7, "hard": 0.3}
    item, log_q, _ = sampler(**config).draw(generator(), np.array([1, 1]), neighbour_IH=neighbours)
    assert set(item[9:]) <= {2, 3}  # near item 1, which is the only target
    expected = 7 * SHARE + 3 * np.array([0, 0, 0.5, 0.5])  # item 3 is nobody's target: by being near alone
    np.testing.assert_allclose(np.exp(log_q[2:]), expected[item[2:]], rtol=1e-6)


def test_before_the_first_mining_and_without_rejections_all_is_popularity():
    mixed = sampler(num_sampled=10, popularity=0.5, hard=0.3, rejected=0.2)
    target = np.array([0, 1])
    plain = sampler(num_sampled=10).draw(generator(), target)
    for expected, found in zip(plain, mixed.draw(generator(), target), strict=True):
        assert found.tolist() == expected.tolist()
    nobody = Rejected(np.empty(0, np.int64), np.zeros(2, np.int64))
    item, log_q, owner = mixed.draw(generator(), target, rejected=nobody)
    assert (owner == SHARED).all()
    np.testing.assert_allclose(np.exp(log_q[2:]), 10 * SHARE[item[2:]], rtol=1e-6)


def test_rejected_items_belong_to_the_example_that_rejected_them():
    rejected = Rejected(np.array([3, 3, 2, 0]), np.array([2, 0, 2]))
    config = {"num_sampled": 300, "popularity": 0.0, "rejected": 1.0}
    item, log_q, owner = sampler(**config).draw(generator(), np.array([0, 1, 0]), rejected=rejected)
    owned = owner != SHARED
    assert (item[owner == 0] == 3).all()
    assert set(item[owner == 2]) == {0, 2}
    assert not (owner == 1).any()
    assert owned.sum() == pytest.approx(200, abs=33)  # of two in three examples; four standard errors
    num_popular = 300 - owned.sum()  # the second example's part
    np.testing.assert_allclose(
        np.exp(log_q[3:][~owned[3:]]), num_popular * SHARE[item[3:][~owned[3:]]], rtol=1e-6
    )


def test_without_in_batch_a_targets_log_q_is_that_of_its_being_drawn():
    neighbours = np.array([[1], [0], [0], [0]], np.int32)
    config = {"num_sampled": 10, "popularity": 0.5, "uniform": 0.2, "hard": 0.3, "in_batch": False}
    item, log_q, _ = sampler(**config).draw(generator(), np.array([0, 0]), neighbour_IH=neighbours)
    expected = 5 * SHARE + 2 / 4 + 3 * np.array([0, 1, 0, 0])
    np.testing.assert_allclose(np.exp(log_q), expected[item], rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6), st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_a_draw_is_a_function_of_its_generator_and_of_fixed_size(seed, num_items, num_examples, num_sampled):
    world = generator(seed)
    count = world.integers(1, 100, num_items)
    target = world.integers(num_items, size=num_examples)
    near = np.array(
        [world.permutation(np.delete(np.arange(num_items), i)) for i in range(num_items)], np.int32
    )
    lengths = world.integers(3, size=num_examples)
    rejected = Rejected(world.integers(num_items, size=lengths.sum()), lengths)
    made = sampler(count, num_sampled=num_sampled, uniform=0.25, popularity=0.25, hard=0.25, rejected=0.25)
    first, again, other = (
        made.draw(np.random.default_rng(key), target, neighbour_IH=near, rejected=rejected)
        for key in ((seed, 1), (seed, 1), (seed, 2))
    )
    for one, two in zip(first, again, strict=True):
        assert one.tolist() == two.tolist()
    for sample in (first, other):
        assert len(sample.item_M) == len(sample.log_q_M) == len(sample.owner_M) == num_examples + num_sampled
        assert ((sample.item_M >= 0) & (sample.item_M < num_items)).all()
        assert np.isfinite(sample.log_q_M).all()
        owned = sample.owner_M != SHARED
        assert (lengths[sample.owner_M[owned]] > 0).all()


@pytest.mark.parametrize(
    ("uniform", "popularity", "hard"), [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.1, 0.4, 0.5)]
)
def test_draws_estimate_the_catalogues_sum_whatever_the_shares(uniform, popularity, hard):
    world = generator(3)
    weight = np.exp(world.standard_normal(50))
    near = np.argsort(-weight + 0.1 * world.standard_normal((50, 50)), axis=1)[:, :5].astype(np.int32)
    made = sampler(
        world.integers(1, 100, 50), num_sampled=20, uniform=uniform, popularity=popularity, hard=hard
    )
    target = world.integers(50, size=8)
    sums = []
    for seed in range(4000):
        item, log_q, _ = made.draw(generator(seed), target, neighbour_IH=near)
        sums.append((weight[item[8:]] / np.exp(log_q[8:])).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert np.mean(sums) == pytest.approx(weight.sum(), abs=4 * error)
    assert error < 0.02 * weight.sum()


def test_hard_negatives_make_the_sum_steadier_where_few_items_carry_it():
    weight = np.ones(1000)
    weight[:10] = 300.0  # items that the queries of this batch would all be shown
    near = np.tile(np.arange(10, dtype=np.int32), (1000, 1))
    deviation = []
    for config in ({"popularity": 1.0}, {"popularity": 0.7, "hard": 0.3}):
        made = sampler(np.ones(1000, np.int64), num_sampled=100, **config)
        draws = (made.draw(generator(seed), np.array([20, 21]), neighbour_IH=near) for seed in range(300))
        deviation.append(np.std([(weight[item[2:]] / np.exp(log_q[2:])).sum() for item, log_q, _ in draws]))
    assert deviation[1] < 0.2 * deviation[0]


def test_counts_must_be_of_the_examples():
    with pytest.raises(DataError, match="items that are a target, is 0"):
        sampler(np.zeros(3, np.int64))
    with pytest.raises(DataError, match="count of item 3, which is a target, is 0, must be at least 1"):
        sampler().draw(generator(), np.array([1, 3]))


# A small world: users of four tastes, each with a quarter of the catalogue, taken by a power law. Half of the examples
# come from users who were also shown one of the next most popular five of their taste after the first five, and left it.
NUM_TASTES, PER_TASTE, DIM = 4, 50, 16
NUM_ITEMS = NUM_TASTES * PER_TASTE
WITHIN = 1 / np.arange(1, PER_TASTE + 1) / (1 / np.arange(1, PER_TASTE + 1)).sum()
WORLD_COUNT = np.tile(np.maximum((10_000 * WITHIN).astype(np.int64), 1), NUM_TASTES)
BATCH = 128


def world_batch(seed: int) -> tuple[np.ndarray, np.ndarray, Rejected]:
    """Tastes, targets and rejected items."""
    rng = generator(seed)
    taste, shown = rng.integers(NUM_TASTES, size=BATCH), rng.integers(2, size=BATCH)
    target = taste * PER_TASTE + rng.choice(PER_TASTE, BATCH, p=WITHIN)
    return (
        taste,
        target,
        Rejected(taste[shown > 0] * PER_TASTE + rng.integers(5, 10, size=shown.sum()), shown),
    )


def world_tables() -> PlainTables:
    torch.manual_seed(0)
    rows = {"taste": NUM_TASTES, "item": NUM_ITEMS}
    return PlainTables([TableSpec(name=n, num_rows=r, dim=DIM, features=(n,)) for n, r in rows.items()])


def unit(tables: PlainTables, feature: str, rows: np.ndarray) -> torch.Tensor:
    vectors = tables.lookup({feature: Jagged.from_lists(rows[:, None])})[feature]
    return torch.nn.functional.normalize(vectors, dim=1)


def world_loss(
    tables: PlainTables, taste: np.ndarray, item: np.ndarray, log_q: np.ndarray, owner: np.ndarray
):
    return sampled_softmax_loss(
        unit(tables, "taste", taste), unit(tables, "item", item), torch.from_numpy(item), torch.from_numpy(log_q),
        0.2, owner_M=torch.from_numpy(owner),
    )  # fmt: skip


def trained(config: NegativesConfig, steps: int) -> PlainTables:
    tables, made = world_tables(), NegativeSampler(WORLD_COUNT, config)
    optimizer = torch.optim.Adam(tables.parameters(), 0.02)
    for step in range(steps):
        taste, target, rejected = world_batch(step)
        loss = world_loss(tables, taste, *made.draw(generator(step), target, rejected=rejected))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tables


def test_a_streaming_frequency_gives_nearly_the_exact_loss_and_gradient():
    frequency = StreamingFrequency(num_slots=1024, alpha=0.01)
    for step in range(1000):
        frequency.update(world_batch(step)[1], step)
    tables, made = trained(NegativesConfig(num_sampled=64), steps=20), sampler(WORLD_COUNT, num_sampled=64)
    exact, streaming, uncorrected = [], [], []
    for step in range(1000, 1005):
        taste, target, _ = world_batch(step)
        item, log_q, owner = made.draw(generator(step), target)
        learned = log_q.copy()
        learned[:BATCH] = np.log(frequency.expected(target))
        for into, value in ((exact, log_q), (streaming, learned), (uncorrected, np.zeros_like(log_q))):
            loss = world_loss(tables, taste, item, value, owner)
            gradients = torch.autograd.grad(loss, list(tables.parameters()))
            into.append((loss.item(), torch.cat([part.ravel() for part in gradients])))
    for (loss, gradient), (near_loss, near), (_, far) in zip(exact, streaming, uncorrected, strict=True):
        assert near_loss == pytest.approx(loss, rel=0.02)
        off = (near - gradient).norm() / gradient.norm()
        assert off < 0.1
        assert off < 0.2 * (far - gradient).norm() / gradient.norm()


def test_rejected_items_end_below_where_popularity_negatives_leave_them():
    taste = np.repeat(np.arange(NUM_TASTES), 5)
    first_five = taste * PER_TASTE + np.tile(np.arange(5), NUM_TASTES)
    score = {}
    for name, shares in {"popularity": {}, "rejected": {"popularity": 0.5, "rejected": 0.5}}.items():
        tables = trained(NegativesConfig(num_sampled=128, **shares), steps=200)
        query = unit(tables, "taste", taste)
        score[name] = np.array(
            [(query * unit(tables, "item", first_five + more)).sum(1).mean().item() for more in (0, 5, 10)]
        )
    before, left, after = score["rejected"] - score["popularity"]
    assert left < -0.08  # 0.33 of e in odds at a temperature of 0.2; measured: -0.10
    assert min(before, after) > -0.03  # what nobody left stays where it was
    assert score["popularity"][1] > score["popularity"][2]  # they are taken more often than the next five,
    assert score["rejected"][1] < score["rejected"][2]  # but less often where both are seen
