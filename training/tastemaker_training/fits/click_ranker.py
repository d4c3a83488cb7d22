"""A click model of the zoo as the ranker: fitted by one rank on the requests that the DLRM would learn from.

What an epoch of the DLRM draws anew is drawn once: candidates without a click, requests that hide context or record. How much each
click counts becomes the propensity of its row, and a network's loss is then the weighted cross-entropy: a click counts so much, what
was not clicked once. Not for the models (`tastemaker.models.ctr`).

Shape letters: N candidates of all requests, G requests, F dense features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist

from tastemaker.features.ranking_batch import QUERY_PREFIX, without_context
from tastemaker.features.ranking_data import CLICK, RankingData
from tastemaker.features.request_features import of_nobody
from tastemaker.home import write_json
from tastemaker.models.calibration import Calibration
from tastemaker.models.ctr.fields import Fields, Rows
from tastemaker.models.ctr.kinds import click_model_class, fit
from tastemaker.models.ctr.model import Labelled, Progress
from tastemaker.models.ctr.ranker import ClickRanker, ranking_rows
from tastemaker.types import Float32
from tastemaker_training.artifacts import save_model
from tastemaker_training.distributed.reporting import report_progress
from tastemaker_training.fits.ranker import RESULT, score_held_out
from tastemaker_training.plan.fit_config import RankerFitConfig
from tastemaker_training.plan.ranker_recipe import NUM_REPORTS
from tastemaker_training.rows.ranking_file import load_ranking_data

_ROUNDING: Final = 1e-9
"""3 of 10 passes are three tenths, though 0.3 * 10 may be less than 3."""
Scores = Callable[[Rows], Float32]


def click_ranker_loop(config: dict[str, Any]) -> None:
    """Fits on the requests in `data`; the model and its calibration lie in `folder` then. Ranks but the first only wait.

    Args:
        config: `data` (path), `fit` (RankerFitConfig), `kind`, `config` (the kind's), `fields` (Fields), `seed`, `folder`.
    """
    torch.set_num_threads(1)
    if dist.get_rank() == 0:
        fit_click_ranker(config, report_progress)
        return
    for tenth in range(NUM_REPORTS):  # every rank must report as often
        report_progress({"epoch": tenth + 1})


class Tenths:
    """Tells of a fit behind each tenth of it, by requests that it did not see; the last with all that is known at the end.

    A fit that ends before its time has told as often: the rest as at its end.

    Args:
        report: Takes the numbers.
        measure: Those of scores.
    """

    def __init__(
        self, report: Callable[[Mapping[str, Any]], None], measure: Callable[[Scores], Mapping[str, float]]
    ) -> None:
        self._report, self._measure, self._told = report, measure, 0

    def __call__(self, progress: Progress) -> None:
        """A `Watch`."""
        reached = min(int(progress.share * NUM_REPORTS + _ROUNDING), NUM_REPORTS - 1)
        if reached > self._told:
            loss = {} if progress.loss is None else {"loss": progress.loss}
            self._until(reached, {**self._measure(progress.scores), **loss})

    def end(self, numbers: Mapping[str, float]) -> None:
        """Tells the end."""
        self._until(NUM_REPORTS, numbers)

    def _until(self, reached: int, numbers: Mapping[str, float]) -> None:
        for tenth in range(self._told, reached):
            self._report({"epoch": tenth + 1, **numbers})
        self._told = reached


def fit_click_ranker(
    config: dict[str, Any], report: Callable[[Mapping[str, Any]], None] | None = None
) -> dict[str, float]:
    """What `click_ranker_loop` does, and its figures on requests that it held out; `report` has them behind each tenth of the fit too.

    Raises:
        DataError: The data lacks a feature that the model is to have, or there are too few requests.
        MissingExtraError: The kind needs a package that is not installed.
    """
    fit_config = RankerFitConfig.parse(config["fit"], "ranker.fit")
    fields, seed = Fields.parse(config["fields"], "ranker's fields"), int(config["seed"])
    data = load_ranking_data(Path(config["data"])).for_targets((CLICK,))
    data.require([name for name in fields.names if name.startswith(QUERY_PREFIX)])
    rest, held_out = data.split(fit_config.held_out_share, seed)
    training, validation = rest.split(fit_config.held_out_share, seed)
    requests = Requests(fields, fit_config, seed, least_weight(training))
    asked = requests.rows(held_out)
    tenths = Tenths(report or (lambda _: None), lambda scores: score_held_out(scores(asked), held_out))
    model = fit(
        config["kind"],
        requests.learned(training),
        settings(config["kind"], {"seed": seed} | config["config"], weighs=training.weight_N is not None),
        requests.asked(validation),
        tenths if report is not None else None,
    )
    ranker = ClickRanker(model)
    strangers = held_out.without_records(requests.nobody_F, 1.0, seed)
    told = score_held_out(model.scores(asked), held_out)
    if not np.isnan(requests.nobody_F).all():
        unknown = score_held_out(model.scores(requests.rows(strangers)), held_out)
        told["held_out_ndcg@10_without_records"] = unknown["held_out_ndcg@10"]
    mixed = held_out.without_records(requests.nobody_F, fit_config.hidden_records, seed)
    calibration = Calibration.fit(model.scores(requests.rows(mixed)), held_out.clicks)
    result = Path(config["folder"]) / RESULT
    save_model(result, "ranker", ranker)
    write_json(result / "calibration.json", calibration.config_dict())
    told |= {"loss": model.losses[-1]} if model.losses else {}
    tenths.end(told)
    return told


@dataclass(frozen=True)
class Requests:
    """Requests as rows of a click model."""

    fields: Fields
    fit: RankerFitConfig
    seed: int
    least_weight: float = 1.0
    """See `propensities`."""

    @property
    def nobody_F(self) -> Float32:  # noqa: N802 (shape letters)
        """See `features.request_features.of_nobody`."""
        return of_nobody(self.fields.dense)

    def learned(self, data: RankingData) -> Labelled:
        """Rows to fit on: as many candidates without a click, and as many requests that hide something, as the fit says."""
        draws = np.random.default_rng([self.seed, 5])
        data = data.without_records(self.nobody_F, self.fit.hidden_records, self.seed)
        keep_N = (data.clicks > 0) | (draws.random(len(data.clicks)) < self.fit.negative_share)
        hidden_G = draws.random(len(data)) < self.fit.hidden_share
        return self._labelled(data.take(np.arange(len(data)), keep_N), hidden_G)

    def asked(self, data: RankingData) -> Labelled:
        """Rows to validate by: as serving sees them."""
        return self._labelled(data, np.zeros(len(data), np.bool_))

    def rows(self, data: RankingData) -> Rows:
        """The same without labels."""
        return self.asked(data).rows

    def _labelled(self, data: RankingData, hidden_G: np.ndarray) -> Labelled:
        batch = without_context(data.batch(), hidden_G)
        rows = ranking_rows(self.fields, batch.dense_BF, batch.bags, data.request_index)
        propensity_N = None if data.weight_N is None else propensities(data.weight_N, self.least_weight)
        return Labelled.of(rows, data.clicks, propensity_N)


def least_weight(training: RankingData) -> float:
    """The least that a click of the training requests counts, 1 at most: of one scale for these and for those that validate."""
    return 1.0 if training.weight_N is None else min(1.0, float(training.weight_N.min(initial=1.0)))


def propensities(weight_N: Float32, least: float) -> Float32:
    """(N,) in (0, 1]: the least weight over how much each row counts, should it be a click.

    With weights of 1 and more these are propensities themselves. Where some are below, the rest count more beside what was not clicked
    than weights say, by 1 / least: `settings` takes a loss to which that does no harm, and calibration follows.

    >>> propensities(np.array([1.0, 4.0], np.float32), 1.0).tolist(), propensities(np.array([0.5, 0.25], np.float32), 0.25).tolist()
    ([1.0, 0.25], [0.5, 1.0])
    """
    return np.minimum(least / weight_N, 1.0).astype(np.float32)


def settings(kind: str, config: Mapping[str, Any], *, weighs: bool) -> dict[str, Any]:
    """The kind's config; where clicks count differently, a network's loss is `non_negative` unless the config says otherwise.

    Weights say how clicks compare, and are no chances to be looked at: the unbiased loss, of propensities that are wrong, has no least
    value.

    >>> settings("deepfm", {"fit": {"epochs": 2}}, weighs=True)
    {'fit': {'epochs': 2, 'propensity': {'non_negative': True}}}
    """
    if not weighs or "fit" not in click_model_class(kind).Config.model_fields:
        return dict(config)
    own = dict(config.get("fit", {}))
    return {**config, "fit": own | {"propensity": {"non_negative": True} | dict(own.get("propensity", {}))}}
