"""MovieLens in two domains by genre: what users who are new to the one gain from what they did in the other.

Ratings of 4 and 5, 5-core. A film is of the target where its first genre is one of `TARGET_GENRES`, else of the source. Of users with 10
or more films in each, some are drawn as cold (nothing of the target is left of them) and as many as few-shot (their three oldest films of
the target are); what is hidden is asked for, all films of the target ranked, those left taken out. `plenty`: all others' rows of
the target are learned from; `scarce`: those of some. Nobody published figures of this protocol: it compares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from pyarrow import csv
from reproduce_data import Ratings, folder, ratings
from reproduction import Reproduction
from turns import Effort

from tastemaker.evaluation import metrics
from tastemaker.models import zoo
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.transfer.domains import ByRows
from tastemaker.models.transfer.model import TransferModel

TARGET_GENRES: Final = ("Comedy", "Drama", "Romance", "Musical", "Documentary")
SEEDS: Final = (0, 1, 2)
TUNED_ON: Final = 99
"""The draw on which settings were chosen: whom it asks, no other draw does."""
FEW: Final = 3
_LEAST: Final = 10
_K: Final = 20
_NOBODY: Final = {"decided": {"kept": []}}
_EVERYBODY: Final = {"decided": {"kept": ["cold", "few", "many"]}}


@dataclass(frozen=True)
class Size:
    """A data set, how many users are asked in each group, of how many others a scarce target is known, and settings.

    Settings were chosen on a draw of users of its own (`TUNED_ON`), in both amounts of the target.
    """

    name: str
    num_asked: int
    num_scarce: int
    tower: Mapping[str, Any]
    factors: Mapping[str, Any]
    alone: Mapping[str, Any]
    l2_sp: float
    ease: float

    def systems(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Kind and settings by name."""
        tower, both = dict(self.tower), {"source": self.factors, "target": self.factors}
        return {
            "popular in the target": ("popular", {}),
            "both as one, EASE": ("ease", {"l2": self.ease}),
            "target alone, iALS": ("emcdr", _NOBODY | {"target": self.alone}),
            "target alone, tower": ("shared-tower", _NOBODY | tower),
            "EMCDR, linear map": ("emcdr", _EVERYBODY | both),
            "EMCDR, network": ("emcdr", _EVERYBODY | both | {"map": {"kind": "network"}}),
            "shared tower": ("shared-tower", _EVERYBODY | tower),
            "fine-tuned": ("fine-tuned", _EVERYBODY | tower),
            "fine-tuned, L2-SP": ("fine-tuned", _EVERYBODY | tower | {"l2_sp": self.l2_sp}),
        }


SMALL: Final = Size(
    "ml-100k", 120, 100, {"dim": 64, "epochs": 30}, {"dim": 32, "regularization": 0.01},
    {"dim": 32, "regularization": 0.1}, 0.1, 300.0,
)  # fmt: skip
LARGE: Final = Size(
    "ml-1m",
    600,
    300,
    {"dim": 64, "epochs": 30},
    {"dim": 64},
    {"dim": 64, "regularization": 0.03},
    0.01,
    300.0,
)


@dataclass(frozen=True)
class World:
    """What is learned from, the domains, and by group of users who is asked for what."""

    log: Log
    domains: ByRows
    asked: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]]

    @property
    def is_target(self) -> np.ndarray:
        return np.arange(self.log.num_items) < self.domains.sizes["target"]

    def scores(self, model: Recommender, group: str) -> tuple[float, float]:
        """Recall@20 and NDCG@20."""
        user_B, targets = self.asked[group]
        item_BK, _ = model.recommend(Askers.known(self.log, user_B), _K, Filters(allowed_I=self.is_target))
        relevance_BK = metrics.relevance(item_BK, targets)
        size_B = np.array([len(items) for items in targets])
        recall_B = metrics.recall(relevance_BK, size_B, _K)
        ndcg_B = metrics.ndcg(relevance_BK, metrics.ideal_grades(targets), _K)
        return float(recall_B.mean()), float(ndcg_B.mean())

    def settings(self, kind: str, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """With the domains, where the kind knows any, and the seed."""
        laid = {"domains": self.domains.model_dump(mode="json"), "seed": seed}
        return {**(laid if issubclass(zoo.model_class(kind), TransferModel) else {}), **settings}


def films(name: str) -> tuple[Ratings, int]:
    """All rows, films of the target first, and how many these are."""
    found = ratings(name)
    found = found.where(found.rating_N >= 4).core(5)
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    table = csv.read_csv(folder(name) / f"{name}.item", parse_options=options)
    words = [str(text).split() for text in table.column(3).to_pylist()]
    genre = {str(film): genres[0] for film, genres in zip(table.column(0).to_pylist(), words, strict=True)}
    is_target = np.array([genre[film] in TARGET_GENRES for film in found.item_ids])
    order_I = np.argsort(~is_target, kind="stable")
    number_I = np.argsort(order_I)
    moved = replace(found, item_N=number_I[found.item_N], item_ids=[found.item_ids[row] for row in order_I])
    return moved, int(is_target.sum())


def world(size: Size, seed: int, *, scarce: bool, shuffled: bool = False, few_left: int = FEW) -> World:
    """A draw of users; `shuffled` gives everybody somebody else's rows of the source."""
    found, num_target = films(size.name)
    draws = np.random.default_rng(seed)
    own_N = found.item_N < num_target
    own_U, other_U = (np.bincount(found.user_N[rows], minlength=found.num_users) for rows in (own_N, ~own_N))
    able = asked_order(np.flatnonzero(np.minimum(own_U, other_U) >= _LEAST), 2 * size.num_asked, seed, draws)
    cold, few = able[: size.num_asked], able[size.num_asked : 2 * size.num_asked]
    order = np.lexsort((found.timestamp_s_N, found.user_N))
    place_N = np.empty(len(found), np.int64)
    place_N[order] = _places(found.user_N[order], own_N[order])
    hidden_N = own_N & (np.isin(found.user_N, cold) | (np.isin(found.user_N, few) & (place_N >= few_left)))
    kept_N = ~hidden_N
    if scarce:
        rest = np.setdiff1d(np.arange(found.num_users), able[: 2 * size.num_asked])
        gone = draws.permutation(rest)[size.num_scarce :]
        kept_N &= ~(own_N & np.isin(found.user_N, gone))
    hidden = found.log(hidden_N).histories()
    learned = found
    if shuffled:
        other = draws.permutation(found.num_users)
        learned = replace(found, user_N=np.where(own_N, found.user_N, other[found.user_N]))
    return World(
        learned.log(kept_N),
        ByRows(sizes={"target": num_target, "source": found.num_items - num_target}),
        {
            "cold": (np.sort(cold).astype(np.int32), [hidden[user] for user in np.sort(cold)]),
            "few-shot": (np.sort(few).astype(np.int32), [hidden[user] for user in np.sort(few)]),
        },
    )


def asked_order(able: np.ndarray, num: int, seed: int, draws: np.random.Generator) -> np.ndarray:
    """Users in the order in which they are asked, without the `num` that the draw for tuning asks first."""
    if seed != TUNED_ON:
        able = np.setdiff1d(able, np.random.default_rng(TUNED_ON).permutation(able)[:num])
    return draws.permutation(able)


def _places(user_N: np.ndarray, own_N: np.ndarray) -> np.ndarray:
    """Of rows by user and time: how many of the target the user has had before."""
    before_N = np.cumsum(own_N) - own_N
    first_N = np.searchsorted(user_N, user_N)
    return before_N - before_N[first_N]


def plenty(effort: Effort) -> Reproduction:
    """ML-100K, enough of the target is known."""
    return _compared(SMALL, effort, scarce=False)


def scarce(effort: Effort) -> Reproduction:
    """ML-100K, a target that is new."""
    return _compared(SMALL, effort, scarce=True)


def plenty_1m(effort: Effort) -> Reproduction:
    """ML-1M, enough of the target is known."""
    return _compared(LARGE, effort, scarce=False)


def scarce_1m(effort: Effort) -> Reproduction:
    """ML-1M, a target that is new."""
    return _compared(LARGE, effort, scarce=True)


def _compared(size: Size, effort: Effort, *, scarce: bool) -> Reproduction:
    known = f"rows of {size.num_scarce} users in the target" if scarce else "all rows of the target"
    part = Reproduction(f"{size.name} in two domains, {known}")
    worlds = [world(size, seed, scarce=scarce) for seed in (SEEDS[:1] if effort.divide > 1 else SEEDS)]
    for name, (kind, settings) in size.systems().items():
        found: dict[str, list[tuple[float, float]]] = {}
        for seed, one in enumerate(worlds):
            own = one.settings(kind, settings, seed)
            if effort.divide > 1 and "epochs" in own:
                own |= {"epochs": 3}
            model = part.timed(name, lambda k=kind, log=one.log, own=own: zoo.fit(k, log, own))
            for group in one.asked:
                found.setdefault(group, []).append(one.scores(model, group))
        for group, scores in found.items():
            for at, metric in enumerate(("Recall@20", "NDCG@20")):
                part.add(name, f"{group}, {metric}", [score[at] for score in scores])
    log, is_target = worlds[0].log, worlds[0].is_target
    part.notes.append(
        f"{int(is_target.sum()):,} films of the target, {int((~is_target).sum()):,} of the source; of {len(log):,} rows that are learned "
        f"from {int(is_target[log.item_N].sum()):,} are of the target (first draw). {size.num_asked} users are asked in each group."
    )
    part.notes.append(
        f"Settings, chosen on a draw of users whom no other draw asks (seed {TUNED_ON}): towers {dict(size.tower)}, L2-SP {size.l2_sp}, factors {dict(size.factors)}, "
        f"of the target alone {dict(size.alone)}. EASE of all films (l2 {size.ease:.0f}) knows of no domains."
    )
    return part


def monitored(_effort: Effort) -> Reproduction:
    """What the monitor says, and what it says where users' rows of the source are somebody else's."""
    size, header = SMALL, ("target", "source", "kind", "group", "alone", "transfer", "difference", "", "kept")
    part = Reproduction(f"{size.name} in two domains: the monitor", header=header)
    for seed in SEEDS[:1]:
        for scarce_, shuffled in ((False, False), (False, True), (True, False), (True, True)):
            one = world(size, seed, scarce=scarce_, shuffled=shuffled, few_left=0)
            for name in ("EMCDR, linear map", "shared tower", "fine-tuned, L2-SP"):
                kind, settings = size.systems()[name]
                own = one.settings(kind, settings, seed) | {"decided": None}
                decided = zoo.fit(kind, one.log, own).config_dict()["decided"]
                about = (
                    "scarce" if scarce_ else "plenty",
                    "exchanged" if shuffled else "own",
                    f"{name}, draw {seed}",
                )
                part.rows += [
                    (*about, *_told(group, decided["kept"]))
                    for group in decided["groups"]
                    if "," not in group["group"]
                ]
                print("  " + " | ".join(part.rows[-1]), flush=True)
    part.notes.append(
        "`exchanged`: everybody has somebody else's rows of the source, so that nothing can be learned from them."
    )
    return part


def _told(group: Mapping[str, Any], kept: Sequence[str]) -> tuple[str, ...]:
    name = f"{group['group']} ({group['num_users']})"
    if group["difference"] is None:
        return name, "", "", "", group["finding"], "no"
    found = f"{group['difference']:+.3f} [{group['low']:+.3f}, {group['high']:+.3f}]"
    values = (f"{group['alone']:.3f}", f"{group['moved']:.3f}", found)
    return name, *values, group["finding"], "yes" if group["group"] in kept else "no"
