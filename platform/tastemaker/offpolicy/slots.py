"""Examination of slots from a home's decision log: which lists, by what luck they were drawn, what was clicked."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tastemaker.config import Settings
from tastemaker.errors import ExperimentError
from tastemaker.experiments.metrics import METRICS
from tastemaker.home import Home
from tastemaker.offpolicy.examination import Examination
from tastemaker.offpolicy.judging import Span, bundle_of_log
from tastemaker.offpolicy.logged_lists import LoggedLists, read_lists
from tastemaker.offpolicy.position_bias import examination_by_luck, without_usual
from tastemaker.stages.exploring import ExplorationConfig, explores, unexplored_chance
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.policy import policy_of
from tastemaker.stages.rerankers.luck import is_sampled
from tastemaker.types import Bool, Float64, Query

_NOTHING: Final = np.empty(0, np.int32)


class Luck(NamedTuple):
    """How a list's order is drawn: whether windows are shuffled, the share of requests that is sampled instead, and what explores."""

    shuffles: bool
    sampled_share: float
    exploration: ExplorationConfig


def measure_examination(settings: Settings, home: Home, span: Span) -> tuple[Examination, int]:
    """Examination of the slots of a span's lists by luck, and how many lists it was told from.

    Lists of bundles that are gone are left out: how they were drawn is not known.

    Raises:
        ExperimentError: Too few clicks where luck decided.
        DataError: The log cannot be read.
    """
    logged = read_lists(
        home, settings.catalogue, METRICS["clicks_per_request"], origin=span.origin, since_ms=span.since_ms,
        until_ms=span.until_ms, now_ms=span.now_ms, window_ms=span.window_ms,
    )  # fmt: skip
    drawn_SK, known_S = by_one_luck(logged, _lucks(settings, home, logged))
    if not known_S.any():
        raise ExperimentError(
            "lists that were drawn in a known way", value=0, limit="at least 1", mend="name newer days"
        )
    users = np.unique(logged.cluster_S[known_S], return_inverse=True)[1].astype(np.int64)
    found = examination_by_luck(
        drawn_SK[known_S], logged.reward_SK[known_S], logged.filled_SK[known_S], users
    )
    return found, int(known_S.sum())


def by_one_luck(logged: LoggedLists, lucks: Sequence[Luck | None]) -> tuple[Float64, Bool]:
    """Conditional propensities under the luck that drew each list alone (S, K), and of which lists they are known (S,).

    Of requests that are sampled at times and have a certain order else, the sampled ones tell; of those whose windows are shuffled, all
    but the sampled ones: their logged propensities are off by the sampled share at most. Lists that explore do not tell; that they
    might have is taken out of the others' propensities, for an order that only exploring could change was no luck.

    Args:
        logged: The lists.
        lucks: How each was drawn; None where that is not known.
    """
    propensity_SK, known_S = logged.propensity_SK.copy(), np.zeros(len(logged), bool)
    seeds = [seed or 0 for seed in logged.decisions["seed"].to_pylist()]
    for s, luck in enumerate(lucks):
        if luck is None or explores(Query(_NOTHING, seed=seeds[s], explore=True), luck.exploration):
            continue
        sampled = is_sampled(seeds[s], luck.sampled_share)
        known_S[s] = sampled != luck.shuffles
        propensity_SK[s, : len(logged.items[s])] /= unexplored_chance(luck.exploration, len(logged.items[s]))
        if sampled and known_S[s]:
            propensity_SK[s] = without_usual(propensity_SK[[s]], luck.sampled_share)[0]
    return propensity_SK, known_S


def _lucks(settings: Settings, home: Home, logged: LoggedLists) -> list[Luck | None]:
    """How each list was drawn, by its bundle and its variant's policy."""
    names, texts = ([x or "" for x in logged.decisions[name].to_pylist()] for name in ("bundle", "policy"))
    configs: dict[str, PipelineConfig | None] = {}
    for name in dict.fromkeys(names):
        bundle = bundle_of_log(settings, home, name)
        origin = f"pipeline.json of bundle {name}"
        configs[name] = None if bundle is None else PipelineConfig.parse(bundle.json("pipeline.json"), origin)
    found = {way: _luck(configs[way[0]], way[1]) for way in set(zip(names, texts, strict=True))}
    return [found[way] for way in zip(names, texts, strict=True)]


def _luck(config: PipelineConfig | None, policy: str) -> Luck | None:
    if config is None:
        return None
    reranking = policy_of(policy).reranking_over(config.reranking)
    sampling = reranking.sampling
    return Luck(
        reranking.shuffle is not None, 0.0 if sampling is None else sampling.share, config.exploration
    )
