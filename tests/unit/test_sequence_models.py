"""Models of sequences: what they learn, and how a fit that was broken off goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tastemaker.errors import CompatibilityError, ConfigError, DataError, TrainingError
from tastemaker.models.log import Askers, Log
from tastemaker.models.sequence.bert4rec import Bert4Rec
from tastemaker.models.sequence.recurrent import Gru4Rec, LstmSessions
from tastemaker.models.sequence.sasrec import SasRec
from tastemaker.models.sequence.token_batch import pack
from tastemaker.models.sequence.windows import HeldOut

NUM_ITEMS = 12
KINDS = [SasRec, Gru4Rec, LstmSessions, Bert4Rec]
SMALL = {"dim": 16, "max_length": 8, "dropout": 0.0}
FIT = {"batch_size": 16, "learning_rate": 0.01}


def going_round(num_users=60, seed=0) -> Log:
    """Users who go from each item to the one 5 further, from wherever they begin."""
    generator = np.random.default_rng(seed)
    first, length = generator.integers(0, NUM_ITEMS, num_users), generator.integers(4, 8, num_users)
    user = np.repeat(np.arange(num_users), length)
    step = np.arange(len(user)) - np.repeat(np.cumsum(length) - length, length)
    return Log.of(
        user, (first[user] + 5 * step) % NUM_ITEMS, num_users=num_users, num_items=NUM_ITEMS,
        timestamp_ms_N=step.astype(np.int64),
    )  # fmt: skip


def fitted(cls, epochs=1, log=None, checkpoints: Path | None = None, **changes):
    config = cls.Config.parse(SMALL | {"fit": FIT | {"epochs": epochs}} | changes, "a test")
    return cls.fit(going_round() if log is None else log, config, checkpoints)


def everybody():
    """One history of three for each item that can be the last."""
    last = np.arange(NUM_ITEMS)
    return Askers.strangers(
        [np.array([item - 10, item - 5, item], np.int32) % NUM_ITEMS for item in last]
    ), last


def share_right(model, k=1):
    """Of the histories, those whose next item is among the first k."""
    askers, last = everybody()
    item, _ = model.recommend(askers, k)
    return (item == ((last + 5) % NUM_ITEMS)[:, None]).any(axis=1).mean()


@pytest.mark.parametrize("cls", KINDS)
def test_a_model_learns_which_item_comes_next(cls):
    slower = {
        "num_heads": 2,
        "newest_share": 0.6,
        "fit": FIT | {"epochs": 60, "patience": 30, "learning_rate": 0.003},
    }
    model = fitted(cls, **(slower if cls is Bert4Rec else {"fit": FIT | {"epochs": 40, "patience": 30}}))
    assert share_right(model) >= 0.9  # 1 in 9 by luck
    assert model.losses[-1] < model.losses[0]
    assert model.fitted.curve[model.best_epoch - 1].ndcg_at_10 == model.fitted.best_ndcg


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "bce", "num_negatives": 1},
        {"kind": "bce", "num_negatives": 4, "calibration": 0.75, "shared": True},
        {"kind": "softmax", "num_negatives": 6},
    ],
)
def test_every_loss_teaches_the_order(loss):
    model = fitted(SasRec, loss=loss, fit=FIT | {"epochs": 40, "patience": 30})
    assert share_right(model, 2) >= 0.9  # 2 in 9 by luck


@pytest.mark.parametrize("cls", [SasRec, Gru4Rec, LstmSessions])
def test_a_state_knows_nothing_of_what_came_later(cls):
    torch.manual_seed(0)
    config = cls.Config.parse(SMALL, "a test")
    encoder = cls.make_encoder(NUM_ITEMS, config).eval()
    begins = [np.array([1, 2, 3], np.int32), np.array([4, 5, 6], np.int32)]
    others = [np.array([1, 2, 9], np.int32), np.array([4, 5, 0], np.int32)]
    states = []
    for histories in (begins, others):
        flat, batch = pack(histories, 8)
        states.append(encoder(torch.from_numpy(flat.astype(np.int64)), batch).view(2, 3, -1))
    torch.testing.assert_close(states[0][:, :2], states[1][:, :2])
    assert (states[0][:, 2] - states[1][:, 2]).abs().amax() > 1e-4


@pytest.mark.parametrize("cls", KINDS)
def test_a_state_is_the_same_beside_longer_histories(cls):
    model = fitted(cls, 1)
    short, long = np.array([3, 8], np.int32), np.arange(12, dtype=np.int32)
    alone = model.user_vectors(Askers.strangers([short]))
    beside = model.user_vectors(Askers.strangers([long, short, long[:5]]))
    np.testing.assert_allclose(beside[1], alone[0], atol=1e-5)  # float32, sums in another order
    np.testing.assert_allclose(
        model.user_vectors(Askers.strangers([long[-8:]]))[0], beside[0], atol=1e-5
    )  # 8 items are read


def test_whoever_has_no_known_history_is_asked_for_by_the_mean_of_users():
    log = going_round()
    model = fitted(SasRec, 2, log)
    nobody = np.empty(0, np.int32)
    vectors = model.user_vectors(Askers.strangers([nobody, np.array([NUM_ITEMS, -1], np.int32)]))
    mean = model.user_vectors(Askers.known(log)).mean(axis=0)
    np.testing.assert_allclose(vectors, [mean, mean], atol=1e-5)


@pytest.mark.parametrize("cls", [SasRec, Bert4Rec])
def test_a_fit_that_was_broken_off_ends_as_if_it_had_not_been(cls, tmp_path):
    whole = fitted(cls, 4, dropout=0.2)
    fitted(cls, 2, checkpoints=tmp_path, dropout=0.2)
    went_on = fitted(cls, 4, checkpoints=tmp_path, dropout=0.2)
    assert went_on.losses == whole.losses
    for name, value in whole.tensors().items():
        np.testing.assert_array_equal(went_on.tensors()[name], value, err_msg=name)


@pytest.mark.parametrize("places", ["from_newest", "from_oldest"])
def test_places_are_counted_from_the_end_that_is_asked_for(places):
    torch.manual_seed(0)
    encoder = SasRec.make_encoder(NUM_ITEMS, SasRec.Config.parse(SMALL | {"places": places}, "a test")).eval()
    _, long = pack([np.array([3, 8, 1, 6], np.int32)], 8)
    _, short = pack([np.array([3, 8, 1], np.int32)], 8)
    states = encoder(torch.tensor([3, 8, 1, 6]), long)[:3]
    before = encoder(torch.tensor([3, 8, 1]), short)
    # What came later moves a token's place from the newest end alone.
    assert torch.allclose(states, before, atol=1e-6) == (places == "from_oldest")


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    fitted(SasRec, 1, checkpoints=tmp_path)
    with pytest.raises(TrainingError, match="of another fit"):
        fitted(SasRec, 2, going_round(seed=1), checkpoints=tmp_path)


def test_a_fit_whose_steps_shrink_goes_on_to_its_own_end_alone(tmp_path, monkeypatch):
    shrinking = FIT | {"epochs": 4, "decay": "linear", "patience": 9}
    whole = fitted(SasRec, fit=shrinking)
    ndcg = iter([0.1, 0.2])  # of two epochs; the third is broken off
    monkeypatch.setattr(HeldOut, "ndcg", lambda *_: next(ndcg, None) or interrupted())
    with pytest.raises(KeyboardInterrupt, match="by a test"):
        fitted(SasRec, fit=shrinking, checkpoints=tmp_path)
    monkeypatch.undo()
    went_on = fitted(SasRec, fit=shrinking, checkpoints=tmp_path)
    assert went_on.losses == whole.losses
    with pytest.raises(
        TrainingError, match="of another fit"
    ):  # its steps would have been larger from the first on
        fitted(SasRec, fit=shrinking | {"epochs": 8}, checkpoints=tmp_path)


def interrupted():
    raise KeyboardInterrupt("by a test")


def test_a_fit_stops_when_validation_gets_no_better_and_keeps_the_best():
    model = fitted(SasRec, fit=FIT | {"epochs": 200, "patience": 3})
    assert len(model.losses) == model.best_epoch + 3 < 200
    again = model.refit_config().fit
    assert again.epochs == model.best_epoch
    assert again.patience is None


def test_a_refit_learns_from_all_and_keeps_the_last_epoch():
    model = fitted(SasRec, fit=FIT | {"epochs": 3, "patience": None})
    assert model.best_epoch == 3
    assert [epoch.ndcg_at_10 for epoch in model.fitted.curve] == [None] * 3


def test_a_fit_leaves_torchs_own_luck_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fitted(SasRec, 1)
    assert torch.equal(torch.rand(1), expected)


def test_bfloat16_learns_the_same():
    model = fitted(SasRec, fit=FIT | {"epochs": 40, "patience": 30, "precision": "bf16"})
    assert share_right(model) >= 0.9  # 1 in 9 by luck


def test_a_loss_that_bert4rec_would_not_heed_is_refused():
    with pytest.raises(ConfigError, match="without another loss"):
        Bert4Rec.Config.parse({"loss": {"kind": "bce", "num_negatives": 1}}, "a test")


def test_a_loss_that_is_no_number_ends_the_fit():
    with pytest.raises(TrainingError, match=r"loss of epoch .*fit.learning_rate"):
        fitted(SasRec, fit=FIT | {"epochs": 30, "learning_rate": 1e30})


def test_users_of_one_item_each_teach_nothing():
    log = Log.of(np.arange(3), np.arange(3), num_users=3, num_items=NUM_ITEMS)
    with pytest.raises(DataError, match="histories with an item that came next"):
        fitted(SasRec, 1, log)


@pytest.mark.parametrize("change", ["lacks", "shape"])
def test_weights_of_another_config_are_refused(change):
    model = fitted(SasRec, 1)
    tensors = dict(model.tensors())
    if change == "lacks":
        del tensors["norm.weight"]
    else:
        tensors["ages.weight"] = tensors["ages.weight"][:3]
    with pytest.raises(CompatibilityError, match="weights of a model of kind sasrec"):
        SasRec.from_state(model.config_dict(), tensors)
