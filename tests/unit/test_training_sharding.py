"""Sharded tables do what plain ones do. Each case runs in processes of its own, as ranks of a gloo group."""

import numpy as np
import pytest
import toy
from ranks import main, run_ranks
from safetensors.numpy import load_file

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

    from tastemaker_training.export import export_model

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
    export_model(_path(out), fit.module.module.module if False else _plain(fit), fit.tables)


def _plain(fit):
    return fit.module.module if not hasattr(fit.module.module, "module") else fit.module.module.module


def _path(text):
    from pathlib import Path

    return Path(text)


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


if __name__ == "__main__":
    main(globals())
