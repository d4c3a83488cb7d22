"""Every model of the zoo keeps the contract of `tastemaker.testing.contracts`."""

import pytest

from tastemaker.models.zoo import MODELS
from tastemaker.testing.contracts import CHECKS, Case, checks_of

# Of models of sequences, which stop by validation in earnest.
SEQUENCES = {"dim": 16, "max_length": 12, "dropout": 0.1}
FIT = {"epochs": 12, "patience": None, "batch_size": 16, "learning_rate": 0.01}
# Of models of a transfer: two of three groups of items are recommended, and the transfer is kept, so that it is what is tried.
TRANSFER = {
    "domains": {"by": "tags", "target": ["taste-0", "taste-1"]},
    "decided": {"kept": ["cold", "few", "many"]},
}
TOWER = TRANSFER | {"dim": 16, "epochs": 24, "batch_size": 64, "learning_rate": 0.01}
CONTENT = {"dim": 16, "metadata_dim": 16}
# How each kind is set for the small world; all of the zoo must be here.
CASES = {
    case.kind: case
    for case in (
        Case("popular", floor=None),
        Case("recent", {"days": 0.01}, floor=None),
        Case("trending", {"half_life_days": 1.0}, floor=None),
        Case("ease", {"l2": 20.0}),
        Case("item-knn", {"num_neighbours": 20}),
        Case("user-knn", {"num_neighbours": 40}, keeps_histories=True),
        Case(
            "rating-knn",
            {"of": "items", "similarity": "pearson-baseline", "shrinkage": 5.0},
            keeps_histories=True,
        ),
        Case("als", {"dim": 8, "alpha": 4.0, "iterations": 5}),
        Case("ials", {"dim": 8, "block": 3, "iterations": 8}),
        Case(
            "bpr", {"dim": 8, "epochs": 30, "learning_rate": 0.02, "batch_size": 256, "regularization": 0.0}
        ),
        Case(
            "neumf",
            {
                "product_dim": 8,
                "network_dim": 8,
                "hidden": [16, 8],
                "num_negatives": 3,
                "epochs": 9,
                "batch_size": 128,
                "learning_rate": 0.01,
            },
        ),
        Case("svd", {"dim": 8, "epochs": 30, "batch_ratings": 512, "learning_rate": 0.03}),
        Case("svdpp", {"dim": 8, "epochs": 30, "batch_ratings": 512, "learning_rate": 0.03}),
        Case("nmf", {"dim": 4}),
        Case("als-explicit", {"dim": 4, "iterations": 6}),
        Case("sasrec", SEQUENCES | {"fit": FIT}, is_ordered=True),
        Case("gru4rec", SEQUENCES | {"hidden": 32, "fit": FIT | {"learning_rate": 0.02}}, is_ordered=True),
        Case("lstm", SEQUENCES | {"hidden": 32, "fit": FIT | {"epochs": 20}}, 0.7, is_ordered=True),
        # Learns from a fifth of the items in each pass, and slowly.
        Case(
            "bert4rec",
            SEQUENCES | {"num_heads": 2, "hidden": 32, "fit": FIT | {"epochs": 40, "learning_rate": 0.005}},
            0.3,
            is_ordered=True,
        ),
        Case("content-knn"),
        Case(
            "dropoutnet",
            {
                "base": {"kind": "als", "config": {"dim": 8, "alpha": 4.0, "iterations": 5}},
                "content": CONTENT,
                "hidden": 32,
                "fit": {"epochs": 12, "batch_users": 32, "batch_items": 64, "learning_rate": 0.003},
            },
        ),
        Case(
            "melu",
            {
                "content": CONTENT,
                "dim": 8,
                "hidden": 16,
                "num_others": 32,
                "fit": {"epochs": 6, "batch_users": 16, "learning_rate": 0.01},
            },
        ),
        # The items that users of the third group like are mostly of the source, and in no list.
        Case("emcdr", TRANSFER | {"source": {"dim": 8}, "target": {"dim": 8}, "least": 1}, 0.5),
        Case("shared-tower", TOWER, 0.5),
        Case("fine-tuned", TOWER | {"source_epochs": 6, "unfreeze_every": 3, "l2_sp": 0.001}, 0.5),
    )
}


def test_all_of_the_zoo_is_tried():
    assert CASES.keys() == MODELS.keys()


@pytest.mark.parametrize(
    ("kind", "check"), [(kind, check) for kind, case in CASES.items() for check in checks_of(case)]
)
def test_contract(kind, check):
    CHECKS[check](CASES[kind])


def test_which_models_tell_no_losses():
    """What has none passes `its_loss_falls`: models that count, those that are solved, and ALS, whose engine tells none."""
    told = {kind for kind, case in CASES.items() if case.fitted.losses}
    counted = {"popular", "recent", "trending", "item-knn", "user-knn", "rating-knn", "content-knn"}
    assert CASES.keys() - told == counted | {"ease", "emcdr", "als"}
