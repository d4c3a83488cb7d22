"""Asks the gates one after the other, keeps each answer, and moves the alias where none says no.

It may be killed at any time and asked again: what passed, on the same bundle, champion and limits, is not asked again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import BundleError, GateRefusedError, UsageError
from tastemaker.home import Home
from tastemaker.promotion.bundle_gates import INTEGRITY, contents, index, integrity, unreadable
from tastemaker.promotion.canary_gate import Canary
from tastemaker.promotion.exposure_gate import exposure
from tastemaker.promotion.gate import Case, Gate, GateResult
from tastemaker.promotion.latency_gate import latency
from tastemaker.promotion.off_policy_gate import off_policy
from tastemaker.promotion.offline_gates import calibration, offline, segments
from tastemaker.promotion.record import (
    Promotion,
    State,
    read_gates,
    read_promotions,
    save,
    save_gate,
    save_state,
)
from tastemaker.promotion.shadow_gate import shadow
from tastemaker.registry.client import Registry, check_alias
from tastemaker.registry.live import CHAMPION
from tastemaker.registry.versions import Version

GATES: Final = (
    Gate(INTEGRITY, integrity),
    Gate("contents", contents),
    Gate("index", index, ("recall",)),
    Gate("offline", offline, ("metric", "users", "sample_users", "loss"), compares=True),
    Gate("segments", segments, ("metric", "users", "sample_users", "segment_loss"), compares=True),
    Gate("exposure", exposure, ("sample_users", "exposure_loss"), compares=True),
    Gate("calibration", calibration, ("calibration_error",)),
    Gate("latency", latency, ("latency_ms", "latency_ratio"), compares=True),
    Gate("off-policy", off_policy, ("off_policy_loss", "off_policy_days", "origin"), compares=True, for_users=True),
    Gate("shadow", shadow, ("origin", "shadow_hours", "shadow_pairs", "shadow_failed", "shadow_overlap"), for_users=True),
)  # fmt: skip
"""In the order in which they are asked; the canary comes after them all."""
Tell = Callable[[GateResult], object]


@dataclass(frozen=True)
class PromotionOrder:
    """What is asked for.

    Args:
        number: The version.
        alias: champion, challenger, shadow or another.
        actor: Who asks.
        reason: Why; kept in the history.
        force: Move the alias against the gates. A bundle that cannot be read whole is refused all the same.
        again: Ask every gate anew, also those that passed.
        dry_run: Ask, and move nothing.
    """

    number: int
    alias: str = CHAMPION
    actor: str = ""
    reason: str = ""
    force: bool = False
    again: bool = False
    dry_run: bool = False


class Promoter:
    """Promotes versions of the settings' catalogue. One promotion to an alias of a home at a time."""

    def __init__(self, settings: Settings, home: Home, registry: Registry, store: BundleStore) -> None:
        self._settings, self._home, self._registry, self._store = settings, home, registry, store
        canary = Canary(registry)
        self._gates: Sequence[Gate] = GATES
        self._end_canary = canary.end
        keys = ("canary", "origin")
        self._canary_gate = Gate("canary", canary.ask, keys, compares=True, for_users=True)

    @property
    def gates(self) -> Sequence[Gate]:
        """All gates, in order."""
        return (*self._gates, self._canary_gate)

    def promote(self, order: PromotionOrder, tell: Tell = lambda _: None) -> Promotion:
        """Points the alias at the version if the gates let it; what became of it, which `refusal` may turn into an error.

        Args:
            order: What is asked for.
            tell: Called with each gate's answer.

        Raises:
            UsageError: Force without a reason, no proper alias, or another process promotes to it.
            RegistryError: There is no such version, or the champion was moved while gates were asked.
        """
        check_alias(order.alias)
        if order.force and not order.reason.strip():
            raise UsageError("a forced promotion needs a reason", mend="say why with --reason")
        with self._home.lock(f"promotion-{self._catalogue}-{order.alias}"):
            return self._promote(order, tell)

    @property
    def _catalogue(self) -> str:
        return self._settings.catalogue

    def _promote(self, order: PromotionOrder, tell: Tell) -> Promotion:
        version = self._registry.version(self._catalogue, order.number)
        live = self._registry.named(self._catalogue).get(CHAMPION)
        promotion = self._begin(order, version, live)
        case = self._case(order, version, live)
        if isinstance(case, GateResult):
            save_gate(self._registry, self._catalogue, order.number, case)
            tell(case)
            return save(self._registry, _ended(promotion, [case], "refused"))
        results = self._ask(case, order, tell)
        promotion = _ended(promotion, results, _state(results, order))
        if promotion.state == "promoted":
            self._move(order, promotion, live)
        is_over = promotion.state in ("promoted", "refused") and not order.dry_run
        if is_over and order.alias == CHAMPION:
            self._end_canary(case, promotion.state)
        return save(self._registry, promotion)

    def _begin(self, order: PromotionOrder, version: Version, live: Version | None) -> Promotion:
        """The promotion that begins, or the one that goes on: unless it ended with the alias moved."""
        now_ms = time.time_ns() // 1_000_000
        promotion = Promotion(
            catalogue=self._catalogue,
            version=order.number,
            alias=order.alias,
            bundle=version.sha256,
            champion=live.number if live else None,
            actor=order.actor,
            reason=order.reason,
            started_ms=now_ms,
            updated_ms=now_ms,
        )
        for old in read_promotions(self._registry, self._catalogue, order.number):
            if old.alias == order.alias and old.state not in ("promoted", "passed"):
                promotion = promotion.model_copy(update={"started_ms": old.started_ms, "run_id": old.run_id})
        save_state(self._registry, promotion)
        return promotion

    def _case(self, order: PromotionOrder, version: Version, live: Version | None) -> Case | GateResult:
        """What gates look at; the refusal where the version cannot be read."""
        try:
            candidate = Bundle.open(self._store, version.ref)
        except BundleError as error:
            return unreadable(error).model_copy(update={"at_ms": time.time_ns() // 1_000_000})
        case = Case(
            settings=self._settings,
            home=self._home,
            number=order.number,
            alias=order.alias,
            candidate=candidate,
            may_begin=not (order.force or order.dry_run),
            again=order.again,
        )
        return self._with_champion(case, live)

    def _with_champion(self, case: Case, live: Version | None) -> Case:
        if live is None or live.sha256 == case.candidate.ref.sha256:
            return case
        try:
            champion = Bundle.open(self._store, live.ref)
        except BundleError as error:  # one that is lost must not keep its successor out
            return replace(case, no_champion=f"the champion cannot be read: {error}")
        return replace(case, champion=champion, champion_number=live.number)

    def _ask(self, case: Case, order: PromotionOrder, tell: Tell) -> list[GateResult]:
        kept = {} if order.again else read_gates(self._registry, self._catalogue, order.number)
        results: list[GateResult] = []
        for gate in self.gates:
            result = self._answer(gate, case, kept.get(gate.name), results)
            is_asked = case.alias == CHAMPION or not gate.for_users
            if is_asked and result is not kept.get(gate.name):
                save_gate(self._registry, self._catalogue, order.number, result)
            results.append(result)
            tell(result)
            if gate.name == INTEGRITY and result.outcome == "refused":
                break
        return results

    def _answer(
        self, gate: Gate, case: Case, kept: GateResult | None, before: Sequence[GateResult]
    ) -> GateResult:
        """What a gate says now, or said before where that stands."""
        key, now_ms = gate.key(case), time.time_ns() // 1_000_000
        if kept is not None and kept.is_valid(key, now_ms, case.limits.valid_hours):
            return kept
        if gate.for_users and case.alias != CHAMPION:
            said = _not_asked(gate, f"only a version for alias {CHAMPION} is asked")
        elif gate is self._canary_gate and any(one.outcome == "refused" for one in before):
            said = _not_asked(gate, "another gate refused")
        else:
            said = gate.ask(case)
        return said.model_copy(update={"key": key, "at_ms": now_ms})

    def _move(self, order: PromotionOrder, promotion: Promotion, live: Version | None) -> None:
        self._registry.set_alias(
            self._catalogue,
            order.alias,
            order.number,
            order.actor,
            order.reason,
            forced=promotion.forced,
            expected={CHAMPION: live.number if live else None},
        )


def refusal(promotion: Promotion) -> GateRefusedError | None:
    """The error of a promotion that was refused; None for every other one."""
    if promotion.state != "refused":
        return None
    refused = promotion.of("refused")
    why = "; ".join(f"{gate.name}: {gate.reason}" for gate in refused)
    is_unreadable = any(gate.name == INTEGRITY for gate in refused)
    mend = "publish the bundle again" if is_unreadable else "correct it, or force it with a reason"
    return GateRefusedError(f"version {promotion.version} was refused ({why})", mend=mend)


def _state(results: Sequence[GateResult], order: PromotionOrder) -> State:
    refused = [gate.name for gate in results if gate.outcome == "refused"]
    if refused and (INTEGRITY in refused or not order.force):
        return "refused"
    if not order.force and any(gate.outcome == "waiting" for gate in results):
        return "waiting"
    return "passed" if order.dry_run else "promoted"


def _ended(promotion: Promotion, results: Sequence[GateResult], state: State) -> Promotion:
    overridden = any(gate.outcome in ("refused", "waiting") for gate in results)
    update = {"gates": tuple(results), "state": state, "forced": state == "promoted" and overridden}
    return promotion.model_copy(update=update)


def _not_asked(gate: Gate, reason: str) -> GateResult:
    return GateResult(name=gate.name, outcome="not applicable", reason=reason)
