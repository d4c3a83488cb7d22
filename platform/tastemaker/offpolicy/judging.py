"""Judges a bundle or stages from a home's decision log: reads, answers anew, estimates. What `tastemaker ope` and gates call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import BundleError, ExperimentError, IntegrityError
from tastemaker.experiments.metrics import Metric, metric_of
from tastemaker.home import Home
from tastemaker.offpolicy.dealt import DealtLists
from tastemaker.offpolicy.judgement import Judgement
from tastemaker.offpolicy.lists import judge_lists
from tastemaker.offpolicy.logged_lists import LoggedLists, read_lists
from tastemaker.offpolicy.recomputing import Recomputing, tellable
from tastemaker.offpolicy.slates import Belief
from tastemaker.offpolicy.slot_chances import slot_chances, with_known_draws
from tastemaker.offpolicy.support import LEAST_EFFECTIVE
from tastemaker.stages.rerankers.luck import Draw
from tastemaker.types import Origin

DAY_MS: Final = 86_400_000
WELL_TOLD: Final = 0.9
"""Share of logged lists that come out again; with fewer the judged lists are not quite those that would serve."""
MOST_LISTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Span:
    """Which answers are judged from: of an origin, from and to when, and how long after one an event counts."""

    since_ms: int
    until_ms: int
    now_ms: int
    window_ms: int
    origin: Origin = "live"

    @classmethod
    def days(cls, days: float, now_ms: int, window_ms: int, origin: Origin = "live") -> "Span":
        """The days before the newest answer whose window has closed."""
        until_ms = now_ms - window_ms
        return cls(until_ms - round(days * DAY_MS), until_ms, now_ms, window_ms, origin)


def judge_bundle(
    settings: Settings,
    home: Home,
    span: Span,
    *,
    bundle: Bundle | None,
    stages: dict[str, Any] | None = None,
    metric: str = "clicks_per_request",
    depths: Sequence[int | None] = (None,),
    belief: Belief = "reward-interaction",
    name: str = "policy",
    level: float = 0.95,
    least_effective: float = LEAST_EFFECTIVE,
    check: bool = True,
    dealt: DealtLists | None = None,
) -> Judgement:
    """What the lists of a bundle, or of other stages, would have earned.

    Args:
        settings: Catalogue, bundle store, length of histories.
        home: Of decisions and events.
        span: See `Span`.
        bundle: Judged; unset, the one that answered last of the lists that are judged from.
        stages: See `stages.policy`; unset, the bundle's own.
        metric: Name of a metric of slots.
        depths: So many first slots are judged and counted, None for all: the first of these that the log supports. Which one that is
            depends on what was shown alone, not on what came of it.
        belief: See `lists.judge_lists`.
        name: In the judgement.
        level: Of intervals.
        least_effective: See `support.require_support`.
        check: Whether to tell how many logged lists come out again.
        dealt: Judged from the lists of this variant alone, and compared with what they earned; unset, from all traffic's.

    Raises:
        ExperimentError: There are no lists with propensities, or they do not support the policy.
        BundleError: A bundle cannot be opened.
        DataError: The log cannot be read.
    """
    measured = metric_of(metric)
    logged = _lists_of(settings, home, span, measured, dealt)
    state = settings.state
    again = Recomputing(home, settings.catalogue, logged, state.history_length, state.late_days)
    asked = check or bundle is None or belief == "item-position"
    bundles = _bundles(settings, home, logged) if asked else {}  # each is read whole
    notes = _checked(again, bundles) if check else []
    lists = again.lists(bundle or _newest(logged, bundles), stages, "answering anew")
    last = None if bundle is not None else _last(logged)
    draws: list[Draw] = []
    if belief == "item-position":
        every = again.draws(bundles)
        logged, known_S = with_known_draws(logged, every, bundles)
        lists = [one for one, known in zip(lists, known_S, strict=True) if known]
        draws = [one for one, known in zip(every, known_S, strict=True) if known and one is not None]

    if dealt is not None:
        notes = [*dealt.notes(len(logged), logged.num_read, last), *notes]

    def judged(depth: int | None) -> Judgement:
        cut = logged if depth is None else logged.down_to(depth)
        chances = slot_chances(cut, lists, draws, bundles) if belief == "item-position" else None
        found = judge_lists(
            cut, lists, measured, belief=belief, chances=chances, name=name, level=level, least_effective=least_effective,
            notes=notes,
        )  # fmt: skip
        return replace(found, depth=depth)

    return _first_supported(judged, depths)


def _first_supported(judged: Callable[[int | None], Judgement], depths: Sequence[int | None]) -> Judgement:
    for depth in depths[:-1]:
        try:
            return judged(depth)
        except ExperimentError:
            continue
    return judged(depths[-1])


def _lists_of(
    settings: Settings, home: Home, span: Span, metric: Metric, dealt: DealtLists | None
) -> LoggedLists:
    """The newest lists of a span whose request can be made again."""
    logged = read_lists(
        home, settings.catalogue, metric, origin=span.origin, since_ms=span.since_ms, until_ms=span.until_ms,
        now_ms=span.now_ms, window_ms=span.window_ms, dealt=dealt,
    )  # fmt: skip
    logged = tellable(home, settings.catalogue, logged)
    if len(logged) <= MOST_LISTS:
        return logged
    newest_S = np.arange(len(logged)) >= len(logged) - MOST_LISTS
    return logged.take(newest_S, "are older than those that are looked at")


def _bundles(settings: Settings, home: Home, logged: LoggedLists) -> dict[str, Bundle]:
    """The bundles that made the lists, by name, as far as they are there."""
    names = dict.fromkeys(name or "" for name in logged.decisions["bundle"].to_pylist())
    opened = {name: bundle_of_log(settings, home, name) for name in names}
    return {name: bundle for name, bundle in opened.items() if bundle is not None}


def _last(logged: LoggedLists) -> str:
    """The name of the bundle that made the newest list."""
    return logged.decisions["bundle"][-1].as_py() or ""


def _newest(logged: LoggedLists, bundles: Mapping[str, Bundle]) -> Bundle:
    name = _last(logged)
    if name not in bundles:
        raise BundleError(
            f"bundle {name}, which answered last, cannot be opened", mend="name a version with --version"
        )
    return bundles[name]


def _checked(again: Recomputing, bundles: dict[str, Bundle]) -> list[str]:
    """How many logged lists come out again, in words."""
    if not bundles:
        return [
            "no bundle that made the logged lists is there any more: whether they come out again is not known"
        ]
    same, looked = again.parity(bundles)
    notes = [f"{same:,} of {looked:,} logged lists come out again under the bundle that made them"]
    if same < WELL_TOLD * looked:
        notes.append("the judged lists are not quite those that would serve: see `tastemaker replay`")
    return notes


def bundle_of_log(settings: Settings, home: Home, name: str) -> Bundle | None:
    """A bundle by the name that decisions have; None where it is not there any more."""
    try:
        return Bundle.open(BundleStore.of(settings, home), f"manifests/{settings.catalogue}/{name}.json")
    except IntegrityError:
        return None
