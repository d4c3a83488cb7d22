"""Sharded tables do what plain ones do. Each case runs in processes of its own, as ranks of a gloo group."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tastemaker.errors import TrainingError
from tastemaker.models.tables import Jagged, PlainTables, TableSpec
from tastemaker.runtime import free_port
from tastemaker_training.fit_config import OptimizerConfig, ShardingConfig

# fbgemm warns of kernels that its CPU build lacks, and torch of interfaces that TorchRec still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SPECS = (
    TableSpec(name="item", num_rows=101, dim=8, features=("history", "item_id")),
    TableSpec(name="genre", num_rows=7, dim=8, features=("genre",)),
    TableSpec(name="year", num_rows=13, dim=8, features=("year",)),
)
STEPS, BATCH, EXTRA = 10, 16, 5
RATES = {"table_learning_rate": 0.1, "dense_learning_rate": 0.01}
TOLERANCE = 1e-6  # float32 sums in another order


class Model(nn.Module):
    """A toy two-tower whose two lookups share a table and differ in their number of bags."""

    def __init__(self, tables, prefetch):
        super().__init__()
        self.tables, self.prefetch = tables, prefetch
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 8)

    def forward(self, bags):
        if self.prefetch:
            self.tables.prefetch(bags)
        query = self.tables.lookup({name: bags[name] for name in ("history", "year")})
        item = self.tables.lookup({name: bags[name] for name in ("item_id", "genre")})
        query_BD = self.linear(torch.cat([query["history"], query["year"]], dim=1))
        item_ND = item["item_id"] + item["genre"]
        logits_BN = query_BD @ item_ND.T
        return -torch.log_softmax(logits_BN, 1).diagonal().mean() + (item_ND**2).mean()


def batch(step, rank):
    random = np.random.default_rng([step, rank])

    def bags(count, rows, longest):
        lists = [random.integers(0, rows, random.integers(0, longest + 1)) for _ in range(count)]
        return Jagged.from_lists(lists, [random.random(len(values)) for values in lists])

    more = BATCH + EXTRA
    return {
        "history": bags(BATCH, 101, 9), "year": bags(BATCH, 13, 1),
        "item_id": bags(more, 101, 1), "genre": bags(more, 7, 3),
    }  # fmt: skip


def factor(step):
    return 1.0 if step < STEPS // 2 else 0.5


def rank_main(rank, num_ranks, port, placement, out):
    """What each rank's process runs."""
    import torch.distributed as dist

    from tastemaker_training import sharding

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(num_ranks)}
    dist.init_process_group("gloo", rank=rank, world_size=num_ranks)
    tables = sharding.ShardedTables(SPECS)
    config = ShardingConfig(default=placement, tables={"year": "data_parallel"})
    distributed = sharding.distribute(
        Model(tables, prefetch=True),
        tables,
        config,
        OptimizerConfig(**RATES),
        sharding.initial_rows(seed=3),
    )
    for step in range(STEPS):
        distributed.scale_learning_rates(factor(step))
        distributed.step(distributed.module(batch(step, rank)))
    whole = tables.plain_tensors()
    if rank == 0:
        shards = {s.table: s.placement for s in distributed.plan}
        assert shards == {"item": placement, "genre": placement, "year": "data_parallel"}
        for spec in SPECS:
            if spec.name != "year":
                assert sum(s.num_rows for s in distributed.plan if s.table == spec.name) == spec.num_rows
        dense = {
            name: p.detach().numpy() for name, p in distributed.module.named_parameters() if "linear" in name
        }
        np.savez(out, **whole, **{f"linear.{name.split('.')[-1]}": value for name, value in dense.items()})
    dist.destroy_process_group()


def plain(num_ranks):
    """The same training in one process, on the mean of the ranks' losses."""
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    from tastemaker_training.sharding import initial_rows

    tables = PlainTables(SPECS)
    for spec in SPECS:
        tables.weight(spec.name).data.copy_(initial_rows(seed=3)(spec, 0, spec.num_rows))
    model = Model(tables, prefetch=False)
    rowwise = RowWiseAdagrad(list(tables.parameters()), lr=0.1, eps=1e-8)
    dense = torch.optim.AdamW(model.linear.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(STEPS):
        rowwise.param_groups[0]["lr"], dense.param_groups[0]["lr"] = 0.1 * factor(step), 0.01 * factor(step)
        rowwise.zero_grad()
        dense.zero_grad()
        (sum(model(batch(step, rank)) for rank in range(num_ranks)) / num_ranks).backward()
        rowwise.step()
        dense.step()
    state = {name: value.detach().numpy() for name, value in model.named_parameters()}
    return {name.removeprefix("tables."): value for name, value in state.items()}


def train(num_ranks, placement, tmp_path):
    out, port = tmp_path / "whole.npz", str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(num_ranks), port, placement, str(out)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    for rank in ranks:
        output, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0, output
    with np.load(out) as file:
        return dict(file)


@pytest.mark.parametrize(("num_ranks", "placement"), [(2, "table_wise"), (2, "row_wise"), (1, "row_wise")])
def test_sharded_tables_equal_plain_ones_after_training(num_ranks, placement, tmp_path):
    sharded, expected = train(num_ranks, placement, tmp_path), plain(num_ranks)
    assert sharded.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(sharded[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def test_training_moves_the_tables_far_more_than_the_tolerance():
    from tastemaker_training.sharding import initial_rows

    after = plain(2)
    for spec in SPECS:
        before = initial_rows(seed=3)(spec, 0, spec.num_rows).numpy()
        assert np.abs(after[f"embedding_bags.{spec.name}.weight"] - before).max() > 0.1


def test_first_values_of_a_row_do_not_depend_on_its_shard():
    from tastemaker_training.sharding import initial_rows

    spec, rows = (
        TableSpec(name="t", num_rows=70_000, dim=2, features=("f",), init_scale=0.5),
        initial_rows(seed=1),
    )
    whole = rows(spec, 0, 70_000)
    assert torch.equal(
        torch.cat([rows(spec, 0, 65_000), rows(spec, 65_000, 65_600), rows(spec, 65_600, 70_000)]), whole
    )
    assert whole.abs().max() <= 0.5
    assert whole.abs().max() > 0.49
    assert not torch.equal(initial_rows(seed=2)(spec, 0, 10), whole[:10])


def test_absent_features_and_shorter_ones_become_empty_bags():
    from tastemaker_training.sharding import keyed

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


if __name__ == "__main__":
    arguments = sys.argv[1:]
    rank_main(int(arguments[0]), int(arguments[1]), *arguments[2:4], Path(arguments[4]))
    # Gloo's thread may release the last tensor while Python ends, which aborts the process.
    os._exit(0)
