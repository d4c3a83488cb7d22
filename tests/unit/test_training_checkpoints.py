"""Checkpoints go from any number of ranks and plan to any other, and nothing of a damaged one is opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy
from ranks import main, run_ranks
from safetensors.numpy import load_file

from tastemaker.errors import TrainingError
from tastemaker_training.plan.fit_config import CheckpointConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOLERANCE = 1e-6  # float32 sums in another order


def checkpoints(folder, **config):
    from tastemaker_training.distributed.checkpoints import Checkpoints

    return Checkpoints(Path(folder), CheckpointConfig(**config), {"model": "toy"})


def train(fit, first, last):
    """The same loss for every number of ranks: each rank has the whole of every batch."""
    for step in range(first, last):
        fit.step(fit.module(toy.batch(step, 0)))


def train_and_save(placement, folder, out):
    from tastemaker_training.distributed.checkpoint_files import Position
    from tastemaker_training.distributed.export import export_model

    fit, kept = toy.distributed(placement), checkpoints(folder)
    train(fit, 0, 6)
    kept.save(fit, Position(epoch=1, step=2))
    train(fit, 6, 9)  # what is saved is the state at `save`, not what training makes of it meanwhile
    kept.wait()
    export_model(Path(out), plain_of(fit), fit.tables)


def restore_and_train(placement, year, folder, out):
    from tastemaker_training.distributed.checkpoint_files import Position
    from tastemaker_training.distributed.export import export_accumulators, export_model

    fit, kept = toy.distributed(placement, year), checkpoints(folder)
    position, more = kept.restore(fit)
    assert position == Position(epoch=1, step=2)
    assert more == {}
    export_accumulators(Path(out).with_name("sums.safetensors"), fit)
    train(fit, 6, 9)
    export_model(Path(out), plain_of(fit), fit.tables)


def plain_of(fit):
    module = fit.module.module
    return getattr(module, "module", module)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint by 4 ranks, row-wise, and the model three steps later."""
    folder = tmp_path_factory.mktemp("saved")
    run_ranks(
        __file__, 4, "train_and_save", placement="row_wise", folder=folder / "c", out=folder / "m.safetensors"
    )
    return folder / "c", load_file(folder / "m.safetensors")


@pytest.mark.parametrize(
    ("num_ranks", "placement", "year"),
    [
        pytest.param(4, "row_wise", "data_parallel", marks=pytest.mark.slow),
        (2, "table_wise", "row_wise"),
        (1, "row_wise", "table_wise"),
        (3, "row_wise", "data_parallel"),
    ],
)
def test_a_fit_goes_on_as_if_nothing_had_happened(saved, num_ranks, placement, year, tmp_path):
    folder, expected = saved
    run_ranks(
        __file__, num_ranks, "restore_and_train",
        placement=placement, year=year, folder=folder, out=tmp_path / "m.safetensors",
    )  # fmt: skip
    again = load_file(tmp_path / "m.safetensors")
    assert again.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def column_wise_round_trip(folder):
    """Column shards have a sum each: their mean is a row's, and a row's is theirs."""
    import torch

    from tastemaker_training.distributed.checkpoint_files import Position
    from tastemaker_training.distributed.state import accumulators, local_parts

    def sums(fit):
        return {
            table: (blocks, [(start, part.clone()) for start, part in local_parts(value)])
            for table, blocks, value in accumulators(fit)
        }

    fit, kept = toy.distributed("column_wise"), checkpoints(folder)
    train(fit, 0, 4)
    kept.save(fit, Position(epoch=1))
    kept.wait()
    columns = sums(fit)
    again = toy.distributed("column_wise")
    checkpoints(folder).restore(again)
    for table, (blocks, parts) in sums(again).items():
        for (start, part), (theirs, expected) in zip(parts, columns[table][1], strict=True):
            assert start == theirs
            assert torch.equal(part, expected), table
        assert blocks == (1 if table == "year" else 2)
    rows = toy.distributed("row_wise")
    checkpoints(folder).restore(rows)
    whole = torch.cat([part for _, part in sorted(columns["item"][1], key=lambda found: found[0])])
    ((_, row_sums),) = sums(rows)["item"][1]
    torch.testing.assert_close(row_sums, whole.view(2, -1).mean(dim=0))


def test_sums_of_column_shards_become_sums_of_rows(tmp_path):
    run_ranks(__file__, 1, "column_wise_round_trip", folder=tmp_path)


def keep_some(folder):
    from tastemaker_training.distributed.checkpoint_files import Position

    fit, kept = toy.distributed("row_wise"), checkpoints(folder, keep=2)
    for epoch in range(1, 6):
        best = 1 if epoch < 4 else 4
        kept.save(fit, Position(epoch=epoch, best_epoch=best, best_metric=float(best)))
        kept.wait()
        if epoch == 3:
            assert [path.name[:6] for path in sorted(Path(folder).iterdir())] == [
                "000001",
                "000002",
                "000003",
            ]
            assert kept.best() == "000001-000000000"
    assert kept.newest() == "000005-000000000"


def test_the_newest_and_the_best_are_kept(tmp_path):
    run_ranks(__file__, 1, "keep_some", folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000004-000000000", "000005-000000000"]


def refuse(folders):
    """Every rank gives the same reason, whichever rank found it, and nothing was changed."""
    fit = toy.distributed("row_wise")
    before = [shard.rows_RD.clone() for shard in fit.tables.shards()]
    for folder, words in folders.items():
        with pytest.raises(TrainingError, match=words):
            checkpoints(folder).restore(fit)
        assert all((now.rows_RD == was).all() for now, was in zip(fit.tables.shards(), before, strict=True))


def missing(folder):
    (folder / "__1_0.distcp").unlink()


def truncated(folder):
    path = folder / "__2_0.distcp"
    path.write_bytes(path.read_bytes()[:-7])


def changed(folder):
    path = folder / "__0_0.distcp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def foreign(folder):
    shutil.copy(folder / "__0_0.distcp", folder / "__7_0.distcp")


def pickled(folder):
    """What torch would unpickle: the list of tensors."""
    path = folder / ".metadata"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def another(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["identity"]["model"] = "other"
    path.write_text(json.dumps(manifest))


def newer(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))


DAMAGES = [
    (missing, r"__1_0\.distcp is missing"),
    (truncated, r"__2_0\.distcp, is '\d+ bytes', must be \d+ bytes"),
    (changed, r"__0_0\.distcp was changed after it was written"),
    (foreign, r"__7_0\.distcp is not of this checkpoint"),
    (pickled, r"\.metadata was changed after it was written"),
    (another, "model of checkpoint .* is 'other', must be toy"),
    (newer, "schema of checkpoint .* is 99, must be at most 1: upgrade"),
]


def test_a_damaged_checkpoint_is_refused_by_every_rank(saved, tmp_path):
    words = {}
    for damage, reason in DAMAGES:
        folder = tmp_path / damage.__name__
        shutil.copytree(saved[0], folder)
        damage(folder / "000001-000000002")
        words[str(folder)] = reason
    run_ranks(__file__, 2, "refuse", folders=words)


def test_a_checkpoint_that_was_not_finished_does_not_count(saved, tmp_path):
    from tastemaker_training.distributed.checkpoints import Checkpoints

    shutil.copytree(saved[0], tmp_path / "c")
    (tmp_path / "c" / "000001-000000002" / "manifest.json").unlink()
    assert Checkpoints(tmp_path / "c", CheckpointConfig(), {}).newest() is None


if __name__ == "__main__":
    main(globals())
