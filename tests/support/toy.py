"""A toy model over three tables, its batches, and its training in one process: what sharded trainings must equal."""

import numpy as np
import torch
from torch import nn

from tastemaker.models.tables import Jagged, PlainTables, TableSpec

SPECS = (
    TableSpec(name="item", num_rows=101, dim=8, features=("history", "item_id")),
    TableSpec(name="genre", num_rows=7, dim=8, features=("genre",)),
    TableSpec(name="year", num_rows=13, dim=8, features=("year",)),
)
BATCH, EXTRA = 16, 5
TABLE_RATE, DENSE_RATE, SEED = 0.1, 0.01, 3


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
        logits_BN, item_ND = self.logits(bags)
        return -torch.log_softmax(logits_BN, 1).diagonal().mean() + (item_ND**2).mean()

    def logits(self, bags):
        query = self.tables.lookup({name: bags[name] for name in ("history", "year")})
        item = self.tables.lookup({name: bags[name] for name in ("item_id", "genre")})
        query_BD = self.linear(torch.cat([query["history"], query["year"]], dim=1))
        item_ND = item["item_id"] + item["genre"]
        return query_BD @ item_ND.T, item_ND


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


def distributed(placement, year="data_parallel", rows=None, pipelined=False, **sharding):
    """The toy over the ranks of this process's group, and where it is `pipelined` as a fit's loop takes it."""
    from tastemaker_training.distributed.sharded_tables import ShardedTables, initial_rows
    from tastemaker_training.distributed.sharding import distribute
    from tastemaker_training.plan.fit_config import OptimizerConfig, ShardingConfig

    config = ShardingConfig(default=placement, tables={"year": year}, column_width=4, **sharding)
    tables = ShardedTables(SPECS, config)
    optimizers = OptimizerConfig(table_learning_rate=TABLE_RATE, dense_learning_rate=DENSE_RATE)
    model = Model(tables, prefetch=not pipelined)
    if pipelined:
        from tastemaker_training.distributed.pipelining import Objective

        return model, distribute(
            Objective(model, model.forward), tables, config, optimizers, rows or initial_rows(SEED)
        )
    return distribute(model, tables, config, optimizers, rows or initial_rows(SEED))


def train_plain(num_steps, num_ranks, factor=lambda step: 1.0):
    """The same training in one process, on the mean of the ranks' losses: the state by plain names, and the losses."""
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    from tastemaker_training.distributed.sharded_tables import initial_rows

    tables = PlainTables(SPECS)
    for spec in SPECS:
        tables.weight(spec.name).data.copy_(initial_rows(seed=SEED)(spec, 0, spec.num_rows))
    model = Model(tables, prefetch=False)
    rowwise = RowWiseAdagrad(list(tables.parameters()), lr=TABLE_RATE, eps=1e-8)
    dense = torch.optim.AdamW(model.linear.parameters(), lr=DENSE_RATE, weight_decay=0.0)
    losses = []
    for step in range(num_steps):
        rowwise.param_groups[0]["lr"] = TABLE_RATE * factor(step)
        dense.param_groups[0]["lr"] = DENSE_RATE * factor(step)
        rowwise.zero_grad()
        dense.zero_grad()
        loss = sum(model(batch(step, rank)) for rank in range(num_ranks)) / num_ranks
        loss.backward()
        losses.append(loss.item())
        rowwise.step()
        dense.step()
    return {name: value.detach().numpy() for name, value in model.named_parameters()}, losses
