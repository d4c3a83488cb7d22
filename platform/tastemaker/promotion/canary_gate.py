"""The gate that lets a small share of users have the version first: an experiment against the champion, step by step.

All that it knows between two calls lies in the experiment itself: its name says which version runs against which champion,
its traffic says the step, its history says since when. So a promotion that was killed goes on where it was.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tastemaker.errors import ConfigError, ExperimentError, StateError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.guardrails import GuardrailReport, check_guardrails
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.experiments.starting import check_definition
from tastemaker.experiments.store import ExperimentStore
from tastemaker.promotion.gate import Case, GateResult, Outcome
from tastemaker.registry.live import Watcher
from tastemaker.registry.overview import wait_until_answered
from tastemaker.registry.reports import GATEWAY, read_reports, stage_of
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    import redis

    from tastemaker.registry.client import Registry

ALIAS: Final = "canary"
NAME: Final = "canary"
ACTOR: Final = "tastemaker promote"
_ANSWER_SECONDS: Final = 60.0
_LEVEL: Final = 0.95
_HOUR_MS: Final = 3_600_000
_SHARE: Final = 10_000
"""Traffic is given in so many parts of a layer."""


class Canary:
    """The canary of a catalogue; there is one at a time."""

    def __init__(self, registry: "Registry") -> None:
        self._registry = registry

    def ask(self, case: Case) -> GateResult:
        """Begins the canary, or says how it stands; a step that is over makes place for the next."""
        if not case.limits.canary.steps:
            return _result("not applicable", "promotion.canary.steps is empty")
        if case.champion_number is None or case.champion is None:
            return _result("not applicable", case.no_champion)
        try:
            with case.state() as (client, keys):
                return self._ask(case, client, keys)
        except ConfigError as error:  # of `promotion.canary`, or of the canary that runs
            return _result("refused", f"it cannot be judged: {error}")
        except StateError as error:
            return _result("not applicable", f"nothing serves: {error}")

    def end(self, case: Case, reason: str) -> None:
        """Stops the version's canaries that run, and takes the alias away from it."""
        try:
            with case.state() as (client, keys):
                _stop(ExperimentStore(client, keys), case.number, reason)
        except StateError:
            return  # nothing serves, so nothing runs
        named = self._registry.aliases(case.settings.catalogue).get(ALIAS)
        if named is not None and named.number == case.number:
            self._registry.remove_alias(case.settings.catalogue, ALIAS, ACTOR, reason)

    def _ask(self, case: Case, client: "redis.Redis", keys: Keys) -> GateResult:
        store = ExperimentStore(client, keys)
        found = _newest(store, case)
        if found is not None and found.state == "running":
            return _judge(case, store, found)
        if found is not None and not case.again:
            last = store.history(found.name)[-1]
            why = f"{found.name} was stopped by {last.actor}: {last.reason}; --again begins another"
            return _result("refused", why)
        if not case.may_begin:
            return _result(
                "not applicable", "no canary is begun by a promotion that is forced or moves nothing"
            )
        return self._begin(case, store, client, keys)

    def _begin(self, case: Case, store: ExperimentStore, client: "redis.Redis", keys: Keys) -> GateResult:
        _stop(store, case.number, "the champion is another one now")
        running = [e for e in store.list() if e.state == "running" and e.name.startswith(f"{NAME}-")]
        if running:
            return _result("waiting", f"{running[0].name} runs: promote its version, or stop it")
        if not any(stage_of(name) == GATEWAY for name in read_reports(client, keys)):
            return _result("not applicable", "no gateway serves")
        experiment = _experiment(case)
        check_definition(experiment)  # before the alias is moved for it
        catalogue, reason = case.settings.catalogue, f"canary of version {case.number}"
        named = self._registry.aliases(catalogue).get(ALIAS)
        if named is None or named.number != case.number:
            self._registry.set_alias(catalogue, ALIAS, case.number, ACTOR, reason)
        Watcher(self._registry, client, keys).poll()
        if not wait_until_answered(client, keys, ALIAS, case.number, _ANSWER_SECONDS):
            why = f"not every gateway answers from version {case.number} yet: see `tastemaker versions`"
            return _result("waiting", why)
        try:
            store.create(experiment, actor=ACTOR, reason=reason)
        except ExperimentError as error:
            return _result("waiting", f"it cannot begin: {error}")
        return _result("waiting", f"{experiment.name} begins with {case.limits.canary.steps[0]:.1%} of users")


def _judge(case: Case, store: ExperimentStore, experiment: Experiment) -> GateResult:
    """What the step that runs says; the next begins where it is over."""
    canary = case.limits.canary
    step = min(sum(_traffic(share) < experiment.traffic for share in canary.steps), len(canary.steps) - 1)
    since_ms = [c.at_ms for c in store.history(experiment.name) if "traffic" in c.changes][-1]
    seen = _observations(case, experiment)
    if seen is None:
        return _result(
            "waiting", f"{experiment.name}, {_step(canary.steps, step)}: no answer can be judged yet"
        )
    reports = check_guardrails(seen, Weighing(experiment, _LEVEL, len(case.candidate.item_ids)))
    since = seen.timestamp_ms_R >= since_ms
    num, hours = int((seen.variant_R[since] == 1).sum()), (case.now_ms - since_ms) / _HOUR_MS
    numbers = {"step": step + 1.0, "requests": float(num), "hours": round(hours, 2)}
    numbers |= {f"{one.metric}": one.value for one in reports if one.value is not None}
    breached = [one for one in reports if one.state == "breached"]
    said = f"{experiment.name}, {_step(canary.steps, step)}, {num} requests in {hours:.1f} h"
    if breached:
        return _result("refused", f"{said}: {breached[0].reason}", numbers)
    if num < canary.requests or hours < canary.hours:
        wanted = f"{canary.requests} requests and {canary.hours:g} h"
        return _result("waiting", f"{said}, of {wanted}: {_summary(reports)}", numbers)
    if step + 1 < len(canary.steps) and not case.may_begin:
        return _result("waiting", f"{said}: the step is over, the next is not begun", numbers)
    if step + 1 < len(canary.steps):
        store.ramp(
            experiment.name,
            traffic=_traffic(canary.steps[step + 1]),
            actor=ACTOR,
            reason=f"{_step(canary.steps, step)} is over: {_summary(reports)}",
        )
        return _result("waiting", f"{experiment.name} goes on with {_step(canary.steps, step + 1)}", numbers)
    return _result("passed", f"{said}: {_summary(reports)}", numbers)


def _experiment(case: Case) -> Experiment:
    now = datetime.fromtimestamp(case.now_ms / 1000, UTC)
    guardrails = case.limits.canary.guardrails
    name = f"{_prefix(case)}{now:%Y%m%dt%H%M%S}"
    tree: dict[str, Any] = {
        "name": name,
        "hypothesis": f"version {case.number} is not worse than the champion, version {case.champion_number}",
        "salt": name,
        "origin": case.limits.origin,
        "variants": [{"name": "champion", "alias": "champion"}, {"name": "canary", "alias": ALIAS}],
        "allocation": {"kind": "fixed", "weights": [0.5, 0.5]},
        "traffic": _traffic(case.limits.canary.steps[0]),
        "attribution_window_seconds": case.limits.canary.window_seconds,
        "metric": guardrails[0].metric,
        "guardrails": [one.model_dump() for one in guardrails],
    }
    return Experiment.parse(tree, "promotion.canary")


def _newest(store: ExperimentStore, case: Case) -> Experiment | None:
    """The canary of this version against this champion that began last."""
    mine = [one for one in store.list() if one.name.startswith(_prefix(case))]
    return max(mine, key=lambda one: one.name, default=None)


def _stop(store: ExperimentStore, number: int, reason: str) -> None:
    for one in store.list():
        if one.state == "running" and one.name.startswith(f"{NAME}-v{number}-"):
            store.stop(one.name, actor=ACTOR, reason=reason)


def _prefix(case: Case) -> str:
    return f"{NAME}-v{case.number}-against-v{case.champion_number}-"


def _traffic(share: float) -> float:
    """Share of users that take part so that `share` of all get the version: as many get the champion, to compare."""
    return max(1, round(2 * share * _SHARE)) / _SHARE


def _step(steps: tuple[float, ...], step: int) -> str:
    return f"step {step + 1} of {len(steps)}, {steps[step]:.1%} of users"


def _observations(case: Case, experiment: Experiment) -> Observations | None:
    try:
        return read_observations(case.home, case.settings.catalogue, experiment, case.now_ms)
    except ExperimentError:
        return None


def _summary(reports: tuple[GuardrailReport, ...]) -> str:
    return ", ".join(f"{one.metric} {one.state}" for one in reports)


def _result(outcome: Outcome, reason: str, numbers: dict[str, float] | None = None) -> GateResult:
    return GateResult(name="canary", outcome=outcome, reason=reason, numbers=numbers or {})
