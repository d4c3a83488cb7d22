"""What was done to an experiment: one entry a change, never rewritten."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from tastemaker.experiments.definition import Experiment
from tastemaker.strict import Kept

_RAMPED: Final = {"traffic", "ramp", "course"}
Action = Literal["create", "start", "stop", "ramp", "edit", "delete", "holdout"]


class Change(Kept):
    """Who changed what, when and why."""

    version: int = Field(description="of the experiment after it")
    at_ms: int = Field(description="by the clock of Redis/Valkey, ms since 1970 UTC")
    actor: str = Field(
        max_length=200, description="who: a user of the machine, a key, a part of the platform"
    )
    action: Action = Field(description="what was done")
    reason: str = Field(max_length=2000, description="why, in the actor's words")
    changes: dict[str, Any] = Field(description="field -> [before, after]")


def change_between(old: Experiment | None, new: Experiment, now_ms: int, actor: str, reason: str) -> Change:
    """The entry for a change from `old`, None where there was nothing."""
    before = {} if old is None else old.model_dump(mode="json")
    after = new.model_dump(mode="json")
    differ = {
        name: [before.get(name), value]
        for name, value in after.items()
        if name != "version" and before.get(name) != value
    }
    return Change(
        version=new.version, at_ms=now_ms, actor=actor[:200], action=_action(old, new, differ),
        reason=reason[:2000], changes=differ,
    )  # fmt: skip


def _action(old: Experiment | None, new: Experiment, changes: Mapping[str, Any]) -> Action:
    if old is None:
        return "create"
    if old.state != new.state:
        return "start" if new.state == "running" else "stop"
    return "ramp" if changes.keys() <= _RAMPED else "edit"
