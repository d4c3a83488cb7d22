"""Sharded tables do what plain ones do. Each case runs in processes of its own, as ranks of a gloo group."""

from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from ranks import main, run_ranks
from safetensors.numpy import load_file

from tastemaker.errors import TrainingError
from tastemaker.models.tables import Jagged, TableSpec
from tastemaker_training.plan.fit_config import ShardingConfig

# fbgemm warns of kernels that its CPU build lacks, and torch of interfaces that TorchRec still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
STEPS = 50
TOLERANCE = 2e-6  # float32 sums in another order


def factor(step):
    return 1.0 if step < STEPS // 2 else 0.5


def train_rank(placement, out):
    """What each rank runs."""
    import torch.distributed as dist

    from tastemaker_training.distributed.export import export_model

    rank = dist.get_rank()
    fit = toy.distributed(placement)
    for step in range(STEPS):
        fit.scale_learning_rates(factor(step))
        fit.step(fit.module(toy.batch(step, rank)))
    shards = {shard.table: shard.placement for shard in fit.plan}
    assert shards == {"item": placement, "genre": placement, "year": "data_parallel"}
    for spec in toy.SPECS[:2]:
        parts = [shard for shard in fit.plan if shard.table == spec.name]
        assert sum(shard.num_rows * shard.dim for shard in parts) == spec.num_rows * spec.dim
    export_model(Path(out), plain_of(fit), fit.tables)


def plain_of(fit):
    module = fit.module.module
    return getattr(module, "module", module)


@pytest.mark.parametrize(("num_ranks", "placement"), [(2, "table_wise"), (2, "row_wise"), (1, "row_wise")])
def test_sharded_tables_equal_plain_ones_after_training(num_ranks, placement, tmp_path):
    run_ranks(__file__, num_ranks, "train_rank", placement=placement, out=tmp_path / "model.safetensors")
    sharded, (expected, _) = (
        load_file(tmp_path / "model.safetensors"),
        toy.train_plain(STEPS, num_ranks, factor),
    )
    assert sharded.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(sharded[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def test_training_moves_the_tables_far_more_than_the_tolerance():
    from tastemaker_training.distributed.sharded_tables import initial_rows

    after, _ = toy.train_plain(STEPS, 2, factor)
    for spec in toy.SPECS:
        before = initial_rows(seed=toy.SEED)(spec, 0, spec.num_rows).numpy()
        assert np.abs(after[f"tables.embedding_bags.{spec.name}.weight"] - before).max() > 0.1


def variants():
    """What a recipe may ask for beside the plan, on one rank."""
    import torch.distributed as dist

    assert dist.get_world_size() == 1
    check_accumulation()
    check_clipping()
    check_precision()
    check_half_tables()


def check_accumulation():
    """Two backward passes of a half each are one of the whole, for what is updated once in both cases."""

    def moved(parts):
        fit = toy.distributed("data_parallel")
        for part in range(parts):
            loss = fit.module(toy.batch(0, 0)) if parts == 1 else fit.module(toy.batch(part, 0))
            fit.backward(loss, part, parts)
        fit.update()
        return torch.cat([p.detach().flatten() for p in fit.dense_parameters().values()]), fit

    (twice, fit), (first, _) = moved(2), moved(1)
    assert not torch.equal(twice, first)
    model = plain_of(toy.distributed("data_parallel"))
    mean = (model(toy.batch(0, 0)) + model(toy.batch(1, 0))) / 2
    gradient = torch.autograd.grad(mean, model.linear.weight)[0]
    torch.testing.assert_close(
        next(p.grad for name, p in fit.dense_parameters().items() if name.endswith("weight")), gradient,
        rtol=1e-5, atol=1e-7,
    )  # fmt: skip


def check_clipping():
    fit = toy.distributed("row_wise")
    fit.config = fit.config.model_copy(update={"dense_clip_norm": 1e-3})
    fit.backward(fit.module(toy.batch(0, 0)))
    fit.update()
    norm = torch.cat([p.grad.flatten() for p in fit.dense_parameters().values()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def check_precision():
    """The dense parts compute in bfloat16 (8 bits of it), and stay what they are."""
    fit = toy.distributed("row_wise")
    exact = fit.module(toy.batch(0, 0)).item()
    fit.precision = "bf16"
    with fit.arithmetic():
        loss = fit.module(toy.batch(0, 0))
    assert loss.item() != exact
    assert loss.item() == pytest.approx(exact, rel=2**-7)
    fit.step(loss)
    assert {p.dtype for p in fit.dense_parameters().values()} == {torch.float32}


def check_half_tables():
    fit = toy.distributed("row_wise", table_type="fp16")
    before = [shard.rows_RD.clone() for shard in fit.tables.shards()]
    types = {shard.table: shard.rows_RD.dtype for shard in fit.tables.shards()}
    assert types == {"item": torch.float16, "genre": torch.float16, "year": torch.float32}
    losses = [fit.step(fit.module(toy.batch(0, 0))) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all((was != now.rows_RD).any() for was, now in zip(before, fit.tables.shards(), strict=True))


def test_accumulation_clipping_and_precision():
    run_ranks(__file__, 1, "variants")


def pipelined_equals_plain():
    """The pipeline asks for the next rows early, and changes nothing."""
    from tastemaker_training.distributed.pipelining import Pipeline, StepBatch

    plain = toy.distributed("row_wise")
    expected = [plain.step(plain.module(toy.batch(step, 0))) for step in range(6)]
    _, fit = toy.distributed("row_wise", pipelined=True)
    pipeline = Pipeline(fit, 1)
    batches = iter([StepBatch.of(fit.tables, bags, bags) for bags in (toy.batch(s, 0) for s in range(6))])
    assert [pipeline.step(batches, 0, last=True) for _ in range(6)] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(StopIteration):
        pipeline.step(batches, 0, last=True)
    pipeline.close()
    for mine, theirs in zip(fit.tables.shards(), plain.tables.shards(), strict=True):
        torch.testing.assert_close(mine.rows_RD, theirs.rows_RD, rtol=0, atol=TOLERANCE)


def test_the_pipeline_learns_what_plain_steps_learn():
    run_ranks(__file__, 2, "pipelined_equals_plain")


def test_first_values_of_a_row_do_not_depend_on_its_shard():
    from tastemaker_training.distributed.sharded_tables import initial_rows

    spec = TableSpec(name="t", num_rows=70_000, dim=2, features=("f",), init_scale=0.5)
    rows = initial_rows(seed=1)
    whole = rows(spec, 0, 70_000)
    assert torch.equal(
        torch.cat([rows(spec, 0, 65_000), rows(spec, 65_000, 65_600), rows(spec, 65_600, 70_000)]), whole
    )
    assert whole.abs().max() <= 0.5
    assert whole.abs().max() > 0.49
    assert not torch.equal(initial_rows(seed=2)(spec, 0, 10), whole[:10])


def test_absent_features_and_shorter_ones_become_empty_bags():
    from tastemaker_training.distributed.sharded_tables import keyed

    jagged = keyed(
        {"b": Jagged.from_lists([[5, 6], [7]]), "c": Jagged.from_lists([[1], [], [2]])}, ("a", "b", "c")
    )
    assert jagged.keys() == ["a", "b", "c"]
    assert jagged.lengths().tolist() == [0, 0, 0, 2, 1, 0, 1, 0, 1]
    assert jagged.values().tolist() == [5, 6, 7, 1, 2]


def test_a_placement_of_a_table_that_the_model_has_not_is_refused():
    sharding = ShardingConfig(default="row_wise", tables={"genre": "data_parallel"})
    assert sharding.placements(["item", "genre"]) == {"item": "row_wise", "genre": "data_parallel"}
    with pytest.raises(TrainingError, match=r"sharding.tables.genre, must be one of item, year: rename it"):
        sharding.placements(["item", "year"])


# 131,072 rows of 60 floats and their sum: 131,072 * (60 * 4 + 4) bytes = 30.5 MiB.
LARGE = TableSpec(name="large", num_rows=131_072, dim=60, features=("f",))


@pytest.mark.parametrize(
    ("placement", "num_ranks", "budget", "words"),
    [
        ("table_wise", 2, 20, r"table large .* is '30.5 MiB', must be at most the 20.0 MiB that one rank has for it: 10.5 MiB"),
        ("row_wise", 2, 10, r"table large .* is '30.5 MiB', must be at most the 20.0 MiB that 2 ranks have for it: 10.5 MiB"),
        ("data_parallel", 2, 30, r"table large .* 0.5 MiB are missing"),
    ],
)  # fmt: skip
def test_a_table_beyond_the_budget_says_by_how_much(placement, num_ranks, budget, words):
    from tastemaker_training.distributed.budget import check_budget

    sharding = ShardingConfig(default=placement, budget_mib=budget)
    with pytest.raises(TrainingError, match=words):
        check_budget([LARGE], {"large": placement}, sharding, num_ranks)
    check_budget([LARGE], {"large": placement}, ShardingConfig(default=placement, budget_mib=31), num_ranks)


def test_tables_that_fit_alone_but_not_together_are_refused():
    from tastemaker_training.distributed.budget import check_budget

    other = LARGE.model_copy(update={"name": "other"})
    sharding = ShardingConfig(default="row_wise", budget_mib=20)
    with pytest.raises(
        TrainingError, match=r"the tables and their optimizer state, is '61.0 MiB', must be at most the 40.0"
    ):
        check_budget([LARGE, other], {"large": "row_wise", "other": "row_wise"}, sharding, 2)


if __name__ == "__main__":
    main(globals())
