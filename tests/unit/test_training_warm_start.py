"""A warm start matches rows by what they stand for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ranks import main, run_ranks

from tastemaker.bundle.tensor_file import file_parts
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import TrainingError
from tastemaker.features.columns import FeatureSchema
from tastemaker.models.tables import TableSpec
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CONFIG = TwoTowerConfig(dim=4, hidden=6)
BEFORE = {"a": ["x"], "b": ["y"], "c": ["x", "z"]}
NOW = {"c": ["z"], "new": ["w"], "a": ["x"], "rare": []}
ROWS_BEFORE = np.array([1, 2, 3])
ROWS_NOW = np.array([3, 2, 1, 0])
"""Items are in other places, and so are their rows; `rare` has none of its own."""


def items(tags_by_id) -> pa.Table:
    ids = list(tags_by_id)
    return pa.table(
        {
            "item_id": ids, "title": ids, "category": [""] * len(ids), "tags": list(tags_by_id.values()),
            "created_at_ms": [None] * len(ids),
        },
        schema=ITEMS_SCHEMA,
    )  # fmt: skip


def specs(table):
    return two_tower_specs(CONFIG, FeatureSchema.fit(table), num_item_rows=4)


def finish_earlier_training(folder: Path) -> TwoTower:
    torch.manual_seed(1)
    model = TwoTower(CONFIG, specs(items(BEFORE)), item_rows=ROWS_BEFORE)
    sums = {"item_ids": np.array([10, 11, 12, 13], np.float32), "tags": np.array([20, 21, 22], np.float32)}
    (folder / "refit").mkdir(parents=True)
    pq.write_table(items(BEFORE), folder / "items.parquet")
    for name, tensors in (("two_tower", model.tensors()), ("accumulators", sums)):
        content = b"".join(bytes(part) for part in file_parts(tensors))
        (folder / "refit" / f"{name}.safetensors").write_bytes(content)
    return model


def fresh(spec, start, stop):
    return torch.full((stop - start, spec.dim), -7.0)


def opened(folder):
    from tastemaker_training.distributed.warm_start import WarmStart

    return WarmStart.of(folder, items(NOW), FeatureSchema.fit(items(NOW)))


def test_rows_go_where_their_items_and_tags_are_now(tmp_path):
    weights = finish_earlier_training(tmp_path).tensors()
    ids, tags = (weights[f"tables.embedding_bags.{name}.weight"] for name in ("item_ids", "tags"))
    rows = opened(tmp_path).rows(fresh, ROWS_NOW)
    new = np.full(4, -7.0)
    by_name = {spec.name: spec for spec in specs(items(NOW))}
    # Rows now: 0 unknown, 1 "a" (was 1), 2 "new", 3 "c" (was 3).
    np.testing.assert_array_equal(rows(by_name["item_ids"], 0, 4), [ids[0], ids[1], new, ids[3]])
    np.testing.assert_array_equal(rows(by_name["item_ids"], 1, 3), [ids[1], new])
    # Tags now: w, x, z; before: x, y, z.
    np.testing.assert_array_equal(rows(by_name["tags"], 0, 3), [new, tags[0], tags[2]])


def test_a_table_of_another_width_starts_anew(tmp_path):
    finish_earlier_training(tmp_path)
    rows = opened(tmp_path).rows(fresh, ROWS_NOW)
    wide = TableSpec(name="item_ids", num_rows=4, dim=5, features=("item",))
    assert (rows(wide, 0, 4) == -7).all()


def test_the_towers_go_on_from_what_they_learned(tmp_path):
    earlier = finish_earlier_training(tmp_path)
    model = TwoTower(CONFIG, specs(items(NOW)), item_rows=ROWS_NOW)
    opened(tmp_path).set_dense(model)
    for name, value in earlier.query_tower.state_dict().items():
        assert torch.equal(model.query_tower.state_dict()[name], value)


def set_sums(folder):
    from tastemaker_training.distributed.pipelining import Objective
    from tastemaker_training.distributed.sharded_tables import ShardedTables
    from tastemaker_training.distributed.sharding import distribute
    from tastemaker_training.distributed.state import accumulators, local_parts
    from tastemaker_training.plan.fit_config import OptimizerConfig, ShardingConfig

    tables = ShardedTables(specs(items(NOW)))
    model = TwoTower(CONFIG, specs(items(NOW)), tables, ROWS_NOW)
    config = ShardingConfig(default="data_parallel", tables={"item_ids": "row_wise"})
    fit = distribute(Objective(model, model.query), tables, config, OptimizerConfig(), fresh)
    opened(Path(folder)).set_accumulators(fit, ROWS_NOW)
    expected = {"item_ids": [10, 11, 0, 13], "tags": [0, 20, 22], "years": [0] * 2}
    for table, _, value in accumulators(fit):
        for start, part in local_parts(value):
            assert part.tolist() == expected[table][start : start + len(part)], table


def test_what_rows_have_learned_so_far_holds_back_their_steps(tmp_path):
    finish_earlier_training(tmp_path)
    run_ranks(__file__, 2, "set_sums", folder=tmp_path)


def test_a_training_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="holds no finished two-tower training: begin without"):
        opened(tmp_path)


if __name__ == "__main__":
    main(globals())
