"""Where a promotion's state is kept: tags of the version in MLflow, so that whoever asks again goes on where it was left.

Each gate's answer is a tag `tastemaker.gate.<gate>` of its own, written as soon as it is known; what became of the whole is
`tastemaker.promotion.<alias>`, and the files of an MLflow run.
"""

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, ValidationError

from tastemaker.promotion.gate import GateResult
from tastemaker.strict import Kept

if TYPE_CHECKING:
    from tastemaker.registry.client import Registry

GATE_TAG: Final = "tastemaker.gate."
PROMOTION_TAG: Final = "tastemaker.promotion."
State = Literal["running", "waiting", "refused", "passed", "promoted"]


class Promotion(Kept):
    """What became of a version that wants an alias. `passed` is one whose alias was not moved, for nothing was to move."""

    catalogue: str = Field(description="whose version it is")
    version: int = Field(description="number in the registry")
    alias: str = Field(description="what it wants")
    bundle: str = Field(description="hash of its manifest")
    champion: int | None = Field(None, description="version that it was measured against")
    state: State = Field("running", description="running, waiting, refused, passed or promoted")
    actor: str = Field("", description="who asked last")
    reason: str = Field("", description="why")
    forced: bool = Field(False, description="whether gates that refused were overridden")
    started_ms: int = Field(0, description="when it was asked for first")
    updated_ms: int = Field(0, description="when it was asked for last")
    run_id: str | None = Field(None, description="MLflow run that holds its files")
    gates: tuple[GateResult, ...] = Field((), description="what each gate said, in order")

    def of(self, outcome: str) -> list[GateResult]:
        """The gates of one outcome."""
        return [gate for gate in self.gates if gate.outcome == outcome]

    def as_text(self) -> str:
        """For people, in Markdown."""
        lines = [
            f"# Version {self.version} of {self.catalogue} to {self.alias}: {self.state}",
            "",
            f"Asked by {self.actor or 'nobody'}: {self.reason or 'no reason given'}. Forced: {'yes' if self.forced else 'no'}. "
            f"Measured against: {'no champion' if self.champion is None else f'version {self.champion}'}.",
            "",
            "| gate | outcome | value | limit | reason |",
            "|---|---|---|---|---|",
        ]
        for gate in self.gates:
            figures = " | ".join("" if one is None else f"{one:.4g}" for one in (gate.value, gate.limit))
            lines.append(f"| {gate.name} | {gate.outcome} | {figures} | {gate.reason.replace('|', '/')} |")
        return "\n".join([*lines, ""])


def read_gates(registry: "Registry", catalogue: str, number: int) -> dict[str, GateResult]:
    """What gates said of a version last, by name; answers that an earlier release wrote otherwise are left out."""
    return _gates(registry.tags(catalogue, number))


def read_promotions(registry: "Registry", catalogue: str, number: int) -> list[Promotion]:
    """What became of a version for each alias that it wanted, by alias.

    Raises:
        RegistryError: There is no such version.
    """
    registry.version(catalogue, number)
    tags = registry.tags(catalogue, number)
    gates, found = _gates(tags), []
    for tag in sorted(tag for tag in tags if tag.startswith(PROMOTION_TAG)):
        try:
            promotion = Promotion.model_validate_json(tags[tag])
        except ValidationError:  # of another release: the promotion begins anew
            continue
        found.append(_so_far(promotion, gates) if promotion.state == "running" else promotion)
    return found


def save_gate(registry: "Registry", catalogue: str, number: int, result: GateResult) -> None:
    """Keeps what a gate said."""
    registry.tag(catalogue, number, {f"{GATE_TAG}{result.name}": result.model_dump_json()})


def save(registry: "Registry", promotion: Promotion) -> Promotion:
    """Keeps what became of a promotion: the tag, and `promotion.json`, `promotion.md` and each figure in a run of its own."""
    name = f"promote {promotion.version} to {promotion.alias}"
    tags = {"tastemaker.promotion": promotion.alias, "tastemaker.version": str(promotion.version)}
    with registry.run(name, tags=tags, again=promotion.run_id) as run:
        promotion = promotion.model_copy(update={"run_id": run.id})
        run.log_json("promotion.json", promotion.model_dump(mode="json"))
        run.log_text("promotion.md", promotion.as_text())
        run.log_metrics({f"gate/{one.name}": one.value for one in promotion.gates if one.value is not None})
    save_state(registry, promotion)
    return promotion


def save_state(registry: "Registry", promotion: Promotion) -> None:
    """Keeps the tag alone."""
    tag = f"{PROMOTION_TAG}{promotion.alias}"
    registry.tag(promotion.catalogue, promotion.version, {tag: promotion.model_dump_json()})


def _so_far(promotion: Promotion, gates: dict[str, GateResult]) -> Promotion:
    """A promotion that is under way, or was killed, with what gates said since it began."""
    asked = [one for one in gates.values() if one.at_ms >= promotion.started_ms]
    return promotion.model_copy(update={"gates": tuple(sorted(asked, key=lambda one: one.at_ms))})


def _gates(tags: dict[str, str]) -> dict[str, GateResult]:
    found = {}
    for tag, text in tags.items():
        if tag.startswith(GATE_TAG):
            try:
                found[tag.removeprefix(GATE_TAG)] = GateResult.model_validate_json(text)
            except ValidationError:  # of an earlier release: asked again
                continue
    return found
