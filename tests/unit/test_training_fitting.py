"""The loop of a fit: what stops and goes on ends as what was left alone."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import toy
from ranks import main, run_ranks
from safetensors.numpy import load_file

from tastemaker.errors import TrainingError
from tastemaker_training.plan.fit_config import CheckpointConfig, FitConfig, OptimizerConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NUM_EPOCHS, NUM_STEPS = 3, 5


class StoppedError(Exception):
    """Stands for a rank that is lost."""


class Source:
    """The toy's batches; reading the one at which it was told to stop fails, as on a lost rank."""

    num_steps = NUM_STEPS
    num_rows = NUM_STEPS * toy.BATCH

    def __init__(self, stop_at=None, spoil_at=None):
        self.stop_at, self.spoil_at, self.asked = stop_at, spoil_at, []

    def batches(self, epoch, first_step=0):
        self.asked.append((epoch, first_step))
        return islice(self._all(epoch), first_step, None)

    def _all(self, epoch):
        for step in range(NUM_STEPS):
            if (epoch, step) == self.stop_at:
                raise StoppedError
            batch = toy.batch(epoch * NUM_STEPS + step, 0)
            if (epoch, step) == self.spoil_at:
                batch["year"].weights.fill_(float("nan"))
            yield batch


def make(folder, source, **config):
    from tastemaker_training.distributed.checkpoints import Checkpoints
    from tastemaker_training.distributed.pipelining import StepBatch
    from tastemaker_training.fits.fitting import Fit

    told = FitConfig(
        checkpoint=CheckpointConfig(every_steps=2),
        optimizer=OptimizerConfig(dense_learning_rate=toy.DENSE_RATE),
        **config,
    )
    kept = Checkpoints(Path(folder), told.checkpoint, {"model": "toy"})
    model, distributed = toy.distributed("row_wise", pipelined=True)
    fit = Fit(
        distributed,
        source,
        lambda bags: StepBatch.of(distributed.tables, bags, bags),
        told,
        kept,
        NUM_EPOCHS,
        1,
    )
    return model, fit


def run(folder, out, metrics=None, **config):
    """Trains to the end, from whatever checkpoint is there; rank 0 keeps what it reported."""
    import torch.distributed as dist

    from tastemaker_training.distributed.export import export_model

    source, reports = Source(), []
    model, fit = make(folder, source, **config)
    given = iter(metrics or [])
    position = fit.run(
        lambda: {"score": next(given)} if metrics else {}, "score" if metrics else None, reports.append
    )
    export_model(Path(out), model, fit.distributed.tables)
    found = {"asked": source.asked, "reports": reports, "best": position.best_epoch}
    if dist.get_rank() == 0:  # speeds are each rank's own
        Path(out).with_suffix(".json").write_text(json.dumps(found))


def run_and_lose(folder, epoch, step):
    _, fit = make(folder, Source(stop_at=(epoch, step)))
    with pytest.raises(StoppedError):
        fit.run(dict, None, lambda report: None)
    fit.checkpoints.wait()


def spoil(folder):
    _, fit = make(folder, Source(spoil_at=(1, 3)))
    with pytest.raises(TrainingError) as found:
        fit.run(dict, None, lambda report: None)
    text = str(found.value)
    assert text.startswith("the loss of step 4 of epoch 2 on batch ")
    assert ", is nan, must be finite: lower" in text
    assert text.endswith(f"the last good checkpoint is {Path(folder) / '000001-000000002'}")


def read(out):
    return load_file(out), json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run_ranks(__file__, 2, "run", folder=folder / "c", out=folder / "m.safetensors")
    return read(folder / "m.safetensors")


@pytest.mark.parametrize(("lost_at", "goes_on_at"), [((1, 4), [1, 2]), ((2, 0), [2, 0]), ((0, 1), [0, 0])])
def test_a_fit_that_was_lost_goes_on_from_its_last_checkpoint(undisturbed, lost_at, goes_on_at, tmp_path):
    run_ranks(__file__, 2, "run_and_lose", folder=tmp_path / "c", epoch=lost_at[0], step=lost_at[1])
    run_ranks(__file__, 2, "run", folder=tmp_path / "c", out=tmp_path / "m.safetensors")
    (state, said), (expected, plain) = read(tmp_path / "m.safetensors"), undisturbed
    assert said["asked"][0] == goes_on_at
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    assert [r["epoch"] for r in said["reports"]] == [1, 2, 3]
    assert all(r["rows_per_second"] > 0 for r in said["reports"])
    assert [r["loss"] for r in said["reports"]] == pytest.approx(
        [r["loss"] for r in plain["reports"]], rel=1e-12
    )


def test_a_finished_fit_is_not_trained_again(undisturbed, tmp_path):
    for _ in range(2):
        run_ranks(__file__, 1, "run", folder=tmp_path / "c", out=tmp_path / "m.safetensors")
    assert read(tmp_path / "m.safetensors")[1]["asked"] == []


def test_the_best_epoch_is_what_remains(tmp_path):
    run_ranks(
        __file__, 1, "run", folder=tmp_path / "c", out=tmp_path / "m.safetensors", metrics=[0.2, 0.5, 0.1]
    )
    run_ranks(__file__, 1, "run_and_lose", folder=tmp_path / "d", epoch=2, step=0)
    state, said = read(tmp_path / "m.safetensors")
    assert said["best"] == 2
    # The same fit as it was when its third epoch was about to begin.
    run_ranks(__file__, 1, "export_newest", folder=tmp_path / "d", out=tmp_path / "d.safetensors")
    for name, value in load_file(tmp_path / "d.safetensors").items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def export_newest(folder, out):
    from tastemaker_training.distributed.export import export_model

    model, fit = make(folder, Source())
    fit.checkpoints.restore(fit.distributed)
    export_model(Path(out), model, fit.distributed.tables)


def test_a_loss_that_is_no_number_names_step_batch_and_checkpoint(tmp_path):
    run_ranks(__file__, 1, "spoil", folder=tmp_path / "c")


if __name__ == "__main__":
    main(globals())
