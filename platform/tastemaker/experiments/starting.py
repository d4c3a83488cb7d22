"""Whether an experiment may run beside the others, and which units of its layer it gets."""

from collections.abc import Mapping, Sequence
from typing import Final

from tastemaker.errors import ConfigError, ExperimentError
from tastemaker.experiments.allocation import reward_problem
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.layers import SLOTS, num_slots, overlap, resized, size
from tastemaker.experiments.metrics import METRICS, metric_of, unit_metric_of
from tastemaker.registry.live import CHAMPION, LiveAliases
from tastemaker.stages.policy import StagePolicy

_BUNDLE: Final = "the bundle"
_LIST: Final = "the list as a whole"


def check_definition(experiment: Experiment) -> None:
    """Refuses what could never run, whatever else does.

    Raises:
        ConfigError: A variant's policy has an unknown key or a wrong value; a metric is unknown, or is none that can be used so.
    """
    for variant in experiment.variants:
        StagePolicy.of(variant.policy, f"policy of variant {variant.name}")
    metric_of(experiment.metric)
    if experiment.interleaves:
        check_credit(experiment.metric)
    for guardrail in experiment.guardrails:
        unit_metric_of(guardrail.metric, "guardrail")
    kind = metric_of(experiment.reward, "reward").reward
    if kind is None:
        able = ", ".join(name for name, metric in METRICS.items() if metric.reward is not None)
        raise ConfigError("reward", value=experiment.reward, limit=f"one of: {able}", mend="choose another")
    if (reason := reward_problem(experiment.allocation, kind)) is not None:
        raise ConfigError(reason, mend=f"set allocation.reward to {kind}")


def check_credit(name: str) -> None:
    """Refuses a metric that no list is won by, as single items earn nothing in it.

    Raises:
        ConfigError: It is such a one.
    """
    if METRICS[name].reward is None:
        able = ", ".join(one for one, metric in METRICS.items() if metric.reward is not None)
        raise ConfigError(
            "metric of an interleaving", value=name, limit=f"one of: {able}", mend="choose another"
        )


def started(
    experiment: Experiment,
    others: Sequence[Experiment],
    live: LiveAliases | None,
    now_ms: int,
    *,
    reassign: bool = False,
) -> Experiment:
    """The experiment as it runs from `now_ms` on; one that ran before goes on as it was.

    Raises:
        ExperimentError: See `placed`; units that it had belong to another by now, and `reassign` is not asked for.
    """
    course = experiment.course
    paused_ms = max(0, now_ms - course.stopped_ms) if course.started_ms else 0
    moved = course.model_copy(update={"started_ms": course.started_ms + paused_ms or now_ms})
    again = experiment.model_copy(update={"state": "running", "course": moved})
    if course.ranges is not None and (thief := _thief(again, others)) is not None:
        if not reassign:
            raise ExperimentError(
                f"units of experiment {experiment.name} take part in {thief.name} by now",
                mend=f"stop {thief.name}, or ask for other units (reassign), which begins the count anew",
            )
        again = anew(again, now_ms)
    return placed(again, others, live, now_ms)


def anew(experiment: Experiment, now_ms: int) -> Experiment:
    """The experiment with all draws that were kept void, counted from `now_ms` on."""
    course = experiment.course
    update = {"generation": course.generation + 1, "reassigned_ms": now_ms}
    return experiment.model_copy(update={"course": course.model_copy(update=update)})


def placed(
    experiment: Experiment, others: Sequence[Experiment], live: LiveAliases | None, now_ms: int
) -> Experiment:
    """A running experiment with the slots that it needs.

    Raises:
        ExperimentError: Its layer has not enough left or assigns other units, a variant's alias is missing, an experiment
            of another layer changes the same stage, or it is over already.
    """
    if experiment.ends is not None and experiment.ends.timestamp() * 1000 <= now_ms:
        raise ExperimentError(
            f"end of experiment {experiment.name}", value=experiment.ends.isoformat(), limit="in the future",
            mend="set another end",
        )  # fmt: skip
    _check_aliases(experiment.variants, live)
    running = [e for e in others if e.state == "running" and e.origin == experiment.origin]
    neighbours = [e for e in running if e.layer == experiment.layer]
    _check_stages(experiment, [e for e in running if e.layer != experiment.layer])
    for other in neighbours:
        if other.unit != experiment.unit:
            raise ExperimentError(
                f"unit of {experiment.name}", value=experiment.unit, limit=f"{other.unit}, as in {other.name}",
                mend=f"use another layer than {other.layer}: a layer divides units of one kind",
            )  # fmt: skip
    held, taken = experiment.course.ranges or (), [other.ranges for other in neighbours]
    if any(overlap(held, ranges) for ranges in taken):  # they are another's by now, or of another layer
        held = ()
    ranges = resized(held, num_slots(experiment.peak_traffic), taken)
    if ranges is None:
        raise _full(experiment, neighbours)
    course = experiment.course.model_copy(update={"ranges": ranges})
    return experiment.model_copy(update={"course": course})


def _thief(experiment: Experiment, others: Sequence[Experiment]) -> Experiment | None:
    """A running experiment that has slots which this one had."""
    place = (experiment.layer, experiment.origin)
    for other in others:
        there = (other.layer, other.origin) == place and other.state == "running"
        if there and overlap(experiment.ranges, other.ranges):
            return other
    return None


def _full(experiment: Experiment, neighbours: Sequence[Experiment]) -> ExperimentError:
    left = 1 - sum(size(other.ranges) for other in neighbours) / SLOTS
    names = " and ".join(other.name for other in neighbours)
    verb = "run" if len(neighbours) > 1 else "runs"
    return ExperimentError(
        f"experiment {names} {verb} in layer {experiment.layer} for origin {experiment.origin}; traffic of {experiment.name}",
        value=f"{experiment.peak_traffic:g}", limit=f"at most {left:g}, which is left",
        mend="stop the other first, give both less traffic, or use another layer",
    )  # fmt: skip


def _check_aliases(variants: Sequence[Variant], live: LiveAliases | None) -> None:
    """Every variant has a bundle; unknown where nothing serves yet."""
    if live is None:
        return
    versions = {version.version for version in live.aliases.values()}
    for variant in variants:
        number = variant.bundle_version
        if variant.alias not in live.aliases and number not in versions:
            raise ExperimentError(
                f"bundle of variant {variant.name}", value=variant.alias,
                limit=f"one of: {', '.join(live.aliases) or 'none'}; or a version that one of them names",
                mend="promote a version to that alias first",
            )  # fmt: skip


def _check_stages(experiment: Experiment, elsewhere: Sequence[Experiment]) -> None:
    """What a request gets of two layers must not depend on which of them is asked last."""
    own = stages_changed(experiment)
    for other in elsewhere:
        if both := sorted(own.keys() & stages_changed(other).keys()):
            raise ExperimentError(
                f"variant {own[both[0]]} of experiment {experiment.name} changes {both[0]}, as does experiment {other.name} of layer {other.layer}",
                mend=f"put both into one layer, or stop {other.name} first",
            )


def stages_changed(experiment: Experiment) -> Mapping[str, str]:
    """What its variants change, each with the first variant that does."""
    found: dict[str, str] = {_LIST: experiment.variants[0].name} if experiment.interleaves else {}
    for variant in experiment.variants:
        if variant.alias != CHAMPION:
            found.setdefault(_BUNDLE, variant.name)
        policy = StagePolicy.of(variant.policy)
        for stage in policy.model_dump(exclude_defaults=True):
            found.setdefault(stage, variant.name)
    return found
