"""ML-1M, what comes next: 5-core, each user's last item held out, the one before it says when a fit stops, the whole catalogue ranked.

Rows are sorted by user and time, ties in the order of the file; what a user has is masked. HR@10 and NDCG@10 are means over all
users. Published: SASRec, BERT4Rec and SASRec with cross-entropy [Klenitskiy & Vasilev 2023], BERT4Rec [Petrov & Macdonald 2022],
gSASRec [Petrov & Macdonald 2023]. GRU4Rec is RecBole's benchmark, which is another protocol: ratings of 3 and more, 10-core,
histories not masked.

Settings are those of Klenitskiy & Vasilev but for smaller batches and a step size that is larger and falls to nothing, which take fewer
hours of one core; gSASRec too has their shape. GRU4Rec is twice as wide as RecBole's (embeddings of 64, states of 128). Departures of the models themselves: see `tastemaker.models.sequence`.

A fit keeps its newest epoch in benchmarks/out/reproduce-sequence, in a folder of its settings, so that one that was broken off goes on from
there; its log goes to docs/results.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from report import ROOT, circumstances
from reproduce_data import Ratings, ratings
from reproduction import Reproduction
from turns import Effort

from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.sequence.fitting import Fit
from tastemaker.models.sequence.model import SequenceModel
from tastemaker.models.zoo import model_class

CHECKPOINTS: Final = ROOT / "benchmarks" / "out" / "reproduce-sequence"
FIVE_CORE: Final = (999_611, 6_040, 3_416)
RECBOLE: Final = 834_449
METRICS: Final = ("HR@10", "NDCG@10")
_K: Final = 10
_FIT: Final = {
    "epochs": 36, "batch_size": 64, "validate_every": 2, "patience": 6, "learning_rate": 0.002, "decay": "linear",
}  # fmt: skip
_LONG: Final = {"epochs": 90, "patience": 12}
_FAST: Final = _FIT | {"precision": "bf16"}
_SASREC: Final = {
    "dim": 64, "max_length": 200, "stretches": "newest", "places": "from_oldest", "dropout": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class System:
    """A kind, its settings, and the best published figures of it."""

    kind: str
    title: str
    settings: Mapping[str, Any]
    hit_rate: float
    ndcg: float
    is_recboles: bool = False


SYSTEMS: Final = {
    "sasrec": System(
        "sasrec", "SASRec",
        _SASREC | {
            "loss": {"kind": "bce", "num_negatives": 1},
            "fit": _FIT | {"epochs": 80, "batch_size": 32, "learning_rate": 0.0015, "patience": 12},
        },
        0.2500, 0.1341,
    ),
    "gsasrec": System(
        "sasrec", "gSASRec",
        _SASREC | {
            "loss": {"kind": "bce", "num_negatives": 256, "calibration": 0.75, "shared": True},
            "fit": _FIT | _LONG | {"learning_rate": 0.001},
        },
        0.3003, 0.1726,
    ),
    "sasrec-ce": System(
        "sasrec", "SASRec, cross-entropy",
        _SASREC | {"loss": {"kind": "softmax"}, "fit": _FAST | _LONG},
        0.3152, 0.1821,
    ),
    "bert4rec": System(
        "bert4rec", "BERT4Rec",
        _SASREC | {
            "num_heads": 2,
            "fit": _FAST | {"epochs": 240, "batch_size": 32, "learning_rate": 0.0015, "validate_every": 4, "patience": 12},
        },
        0.2821, 0.1516,
    ),
    "gru4rec": System(
        "gru4rec", "GRU4Rec (RecBole's protocol)",
        {"dim": 128, "max_length": 100, "dropout": 0.35, "hidden": 256, "fit": _FAST | {"epochs": 24, "batch_size": 16}},
        0.2776, 0.1545, is_recboles=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LastOut:
    """All but each user's last item, and that."""

    log: Log
    target_U: np.ndarray

    @classmethod
    def of(cls, found: Ratings) -> "LastOut":
        whole = found.log()
        last = whole.offsets[1:] - 1
        kept_N = np.ones(len(whole), bool)
        kept_N[last] = False
        log = Log(
            whole.num_users, whole.num_items, whole.user_N[kept_N], whole.item_N[kept_N], whole.value_N[kept_N],
            whole.timestamp_ms_N[kept_N],
        )  # fmt: skip
        return cls(log, whole.item_N[last])

    def measured(self, model: SequenceModel, *, masked: bool) -> tuple[float, float]:
        """HR@10 and NDCG@10."""
        item_UK, _ = model.recommend(Askers.known(self.log), _K, Filters(exclude_seen=masked))
        user_H, place_H = np.nonzero(item_UK == self.target_U[:, None])
        return len(user_H) / len(item_UK), float((1 / np.log2(2 + place_H)).sum()) / len(item_UK)


def data(*, recboles: bool) -> LastOut:
    """One of the two protocols' data."""
    found = ratings("ml-1m")
    if recboles:
        found = found.where(found.rating_N >= 3).core(10)
        assert len(found) == RECBOLE, len(found)
    else:
        found = found.core(5)
        assert (len(found), found.num_users, found.num_items) == FIVE_CORE, len(found)
    return LastOut.of(found)


def measure(name: str, effort: Effort) -> Reproduction:
    """Fits one system and measures it."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, force=True)
    system = SYSTEMS[name]
    part = Reproduction(f"ML-1M, next item: {system.title}")
    fit = dict(system.settings["fit"])
    if effort.divide > 1:
        fit |= {"epochs": 2, "validate_every": 1}
    settings = {**system.settings, "fit": fit}
    found, cls = data(recboles=system.is_recboles), model_class(system.kind)
    assert issubclass(cls, SequenceModel)
    config = cls.Config.parse(settings, name)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    model = cls.fit(found.log, config, None if effort.divide > 1 else CHECKPOINTS / f"{name}-{digest}")
    assert model.fitted is not None
    curve = model.fitted.curve
    part.seconds[system.title] = [sum(epoch.seconds for epoch in curve)]
    figures = found.measured(model, masked=not system.is_recboles)
    for metric, ours, published in zip(METRICS, figures, (system.hit_rate, system.ndcg), strict=True):
        part.add(system.title, metric, [ours], published, published)
    part.notes.append(
        f"Settings: {system.kind} {settings}. {len(curve)} epochs, of which the {model.best_epoch}th was best on"
        f" validation (NDCG@10 {model.fitted.best_ndcg:.4f}); median epoch"
        f" {np.median([epoch.seconds for epoch in curve]):.1f} s."
    )
    if system.is_recboles:
        hit_rate, ndcg = found.measured(model, masked=True)
        part.notes.append(
            f"With what a user has masked, which RecBole does not do, the same fit has HR@10 {hit_rate:.4f} and NDCG@10 {ndcg:.4f}."
        )
    part.figures["curve"] = [
        [epoch.number, epoch.loss, epoch.ndcg_at_10] for epoch in curve if epoch.ndcg_at_10 is not None
    ]
    if effort.divide == 1:
        _keep_log(name, part, model.fitted, figures)
    return part


def _keep_log(name: str, part: Reproduction, fit: Fit, figures: tuple[float, float]) -> None:
    """The fit's log beside the results: what, when, where, all epochs."""
    where = circumstances()
    lines = [part.title, f"{where['date']}, commit {where['commit']}, {where['machine']}", *part.notes, ""]
    lines.append("epoch  loss     seconds  validation NDCG@10")
    for epoch in fit.curve:
        ndcg = "" if epoch.ndcg_at_10 is None else f"{epoch.ndcg_at_10:.4f}"
        lines.append(f"{epoch.number:5d}  {epoch.loss:.4f}  {epoch.seconds:7.1f}  {ndcg}".rstrip())
    shown = ", ".join(f"{metric} {ours:.4f}" for metric, ours in zip(METRICS, figures, strict=True))
    lines += ["", f"Test, at epoch {fit.best_epoch}: {shown}"]
    (ROOT / "docs" / "results" / f"{where['date']}-reproduce-{name}.log").write_text("\n".join(lines) + "\n")


def sasrec(effort: Effort) -> Reproduction:
    """With its own loss: one negative."""
    return measure("sasrec", effort)


def gsasrec(effort: Effort) -> Reproduction:
    """256 negatives, calibrated."""
    return measure("gsasrec", effort)


def sasrec_ce(effort: Effort) -> Reproduction:
    """Cross-entropy over the catalogue."""
    return measure("sasrec-ce", effort)


def bert4rec(effort: Effort) -> Reproduction:
    """Hidden items, read both ways."""
    return measure("bert4rec", effort)


def gru4rec(effort: Effort) -> Reproduction:
    """By RecBole's protocol."""
    return measure("gru4rec", effort)
