"""Which versions are in use. What is in use never goes, whatever the settings say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from tastemaker.experiments.definition import Experiment, version_in
from tastemaker.experiments.store import ExperimentStore
from tastemaker.promotion.record import PROMOTION_TAG, read_promotions
from tastemaker.registry.history import AliasMove, rollback_target
from tastemaker.registry.live import LiveAliases, read_live
from tastemaker.registry.reports import Report, read_reports
from tastemaker.registry.versions import Version
from tastemaker.retention.gone import DAY_SECONDS, Gone, Limits
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    import redis

    from tastemaker.registry.client import Registry

_UNDER_WAY: Final = frozenset({"running", "waiting"})
"""States of a promotion that is not through."""


@dataclass(frozen=True)
class Uses:
    """What names versions of a catalogue.

    `waiting` are versions whose promotion is not through.
    """

    versions: Sequence[Version]
    aliases: Mapping[str, int]
    moves: Sequence[AliasMove] = ()
    live: LiveAliases | None = None
    reports: Mapping[str, Report] = field(default_factory=dict)
    experiments: Sequence[Experiment] = ()
    waiting: Mapping[int, str] = field(default_factory=dict)


def read_uses(registry: "Registry", client: "redis.Redis", keys: Keys) -> Uses:
    """As of now.

    Raises:
        RegistryError: MLflow cannot be reached.
        StateError: Redis/Valkey cannot be reached: nobody can tell then what is in use.
    """
    versions = registry.versions(keys.catalogue)
    return _uses(versions, versions, registry, client, keys)


def use_of(
    number: int, registry: "Registry", client: "redis.Redis", keys: Keys, limits: Limits
) -> str | None:
    """Why a version is kept, as of now; None where it may go. Of other versions no promotions are read.

    Raises:
        RegistryError: MLflow cannot be reached.
        StateError: Redis/Valkey cannot be reached.
    """
    versions = registry.versions(keys.catalogue)
    asked = [version for version in versions if version.number == number]
    return kept_versions(_uses(versions, asked, registry, client, keys), limits).get(number)


def _uses(
    versions: Sequence[Version],
    asked: Sequence[Version],
    registry: "Registry",
    client: "redis.Redis",
    keys: Keys,
) -> Uses:
    """As of now, of promotions those of the versions that are asked about."""
    catalogue = keys.catalogue
    return Uses(
        versions=versions,
        aliases={alias: version.number for alias, version in registry.aliases(catalogue).items()},
        moves=registry.history(catalogue),
        live=read_live(client, keys),
        reports=read_reports(client, keys),
        experiments=ExperimentStore(client, keys).list(),
        waiting=dict(_waiting(registry, catalogue, asked)),
    )


def kept_versions(uses: Uses, limits: Limits) -> dict[int, str]:
    """Why each version that is kept is, by number; the gravest reason of each. Others may go.

    Args:
        uses: What names them.
        limits: How many are kept beside those, and how long an alias's past counts.
    """
    kept: dict[int, str] = {}
    for number, why in _reasons(uses, limits):
        kept.setdefault(number, why)
    return kept


def doomed_versions(uses: Uses, limits: Limits) -> list[Gone]:
    """The versions that may go, oldest first; none unless `retention.bundles` is set."""
    newest = limits.settings.bundles
    if newest is None:
        return []
    kept = kept_versions(uses, limits)
    why = f"not in use, and not among the newest {newest}"
    return [Gone("version", str(one.number), why) for one in uses.versions if one.number not in kept]


def _reasons(uses: Uses, limits: Limits) -> Iterator[tuple[int, str]]:
    since_ms = (limits.now - limits.settings.history_days * DAY_SECONDS) * 1000
    yield from ((number, f"alias {alias} names it") for alias, number in sorted(uses.aliases.items()))
    yield from _served(uses)
    yield from _in_experiments(uses.experiments, since_ms)
    yield from uses.waiting.items()
    yield from _once_named(uses.moves, since_ms, limits.settings.history_days)
    for version in uses.versions:
        if datetime.fromisoformat(version.created).timestamp() >= limits.grace:
            yield version.number, f"younger than {limits.settings.grace_hours:g} hours"
    newest = limits.settings.bundles
    for version in uses.versions if newest is None else uses.versions[-newest:]:
        yield version.number, "all are kept" if newest is None else f"among the newest {newest}"


def _served(uses: Uses) -> Iterator[tuple[int, str]]:
    """What replicas name: what they see as live, and what they hold."""
    if uses.live is not None:
        yield from ((one.version, f"live as {alias}") for alias, one in sorted(uses.live.aliases.items()))
        if uses.live.previous is not None:
            yield uses.live.previous.version, "the champion before, held for a rollback"
    held = {sha256: name for name, report in uses.reports.items() for sha256 in report.held}
    yield from ((one.number, f"{held[one.sha256]} holds it") for one in uses.versions if one.sha256 in held)


def _in_experiments(experiments: Iterable[Experiment], since_ms: float) -> Iterator[tuple[int, str]]:
    """Of all but those that were stopped long ago; what an alias names, in an experiment or not, is kept by its alias."""
    for experiment in experiments:
        if experiment.state == "stopped" and experiment.course.stopped_ms < since_ms:
            continue
        for variant in experiment.variants:
            if (number := version_in(variant.alias)) is not None:
                yield number, f"variant {variant.name} of experiment {experiment.name}"


def _once_named(moves: Sequence[AliasMove], since_ms: float, days: int) -> Iterator[tuple[int, str]]:
    """What a rollback goes back to, and what aliases named lately: up to the move that ended it."""
    for alias in sorted({move.alias for move in moves}):
        if (back := rollback_target(moves, alias)) is not None:
            yield back, f"a rollback of {alias} goes back to it"
    for move in moves:
        for number in (move.version, move.previous) if move.timestamp_ms >= since_ms else ():
            if number is not None:
                yield number, f"{move.alias} named it within {days} days"


def _waiting(registry: "Registry", catalogue: str, versions: Iterable[Version]) -> Iterator[tuple[int, str]]:
    for version in versions:
        if any(tag.startswith(PROMOTION_TAG) for tag in registry.tags(catalogue, version.number)):
            for promotion in read_promotions(registry, catalogue, version.number):
                if promotion.state in _UNDER_WAY:
                    yield version.number, f"its promotion to {promotion.alias} is {promotion.state}"
