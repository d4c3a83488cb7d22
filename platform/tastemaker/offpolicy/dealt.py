"""Lists that an experiment dealt to one of its variants by a split that stays. Not for allocations that learn: they deal by what they saw."""

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import Fixed
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.days import of_experiment
from tastemaker.types import Bool, Int64, Origin

_ASSIGNMENT: Final = ("experiment", "variant", "unit", "epoch", "propensities", "assignments")
DEALT_COLUMNS: Final = ("experiment", "variant", "epoch", "propensities", "assignments", "forced_variants")
"""Of the decision log, what `DealtLists` looks at beside the columns that every judgement reads."""


@dataclass(frozen=True, slots=True)
class DealtLists:
    """Which lists a variant got by the experiment's own draw since its units were assigned as they are now: a random sample of its traffic."""

    experiment: Experiment
    variant: str

    @classmethod
    def of(cls, experiment: Experiment, variant: str, origin: Origin) -> "DealtLists":
        """The lists of a variant among the answers of an origin.

        Raises:
            ExperimentError: The experiment has no such variant, is of another origin, or has no split that stays.
        """
        name = experiment.name
        experiment.variant(variant)
        if not isinstance(experiment.allocation, Fixed):
            raise ExperimentError(
                f"allocation of experiment {name}", value=experiment.allocation.kind, limit="fixed: the lists of one variant under any other are no random sample",
                mend="judge from all lists (leave out --variant), or weights of its variants (--experiment)",
            )  # fmt: skip
        if experiment.origin != origin:
            raise ExperimentError(
                f"origin of experiment {name}", value=experiment.origin, limit=f"{origin}, as the answers that are asked for",
                mend=f"give --origin {experiment.origin}",
            )  # fmt: skip
        return cls(experiment, variant)

    def __str__(self) -> str:
        return f"variant {self.variant} of experiment {self.experiment.name}"

    def conditions(self, decisions: pa.Table) -> dict[str, Bool]:
        """By reason for leaving the others out, which decisions may stay, (R,); each has a `decision_id` of its own."""
        wanted = of_experiment(self.experiment)
        mine: Any = wanted.pick(decisions.select(["decision_id", *_ASSIGNMENT]))
        mine = mine.filter(pc.equal(mine["variant"], pa.scalar(self.variant)))
        is_mine: Any = pc.is_in(decisions["decision_id"], value_set=mine["decision_id"].combine_chunks())
        forced: Any = pc.fill_null(pc.list_value_length(decisions["forced_variants"]), 0)
        received_ms: Int64 = decisions["received_ms"].to_numpy()
        return {
            "were forced for testers": forced.to_numpy() == 0,
            f"were of no or another variant than {self}": is_mine.to_numpy().astype(bool),
            f"were dealt before experiment {self.experiment.name} assigned as it does now": received_ms
            >= wanted.since_ms,
        }

    def notes(self, num_lists: int, num_read: int, last: str | None) -> list[str]:
        """What a judgement from these lists says of them; `last` is the bundle of the newest, where that is the one judged."""
        said = [
            f"of the lists of {self}, {num_lists:,} of {num_read:,} answers; "
            "what it is compared with is what this variant earned, not all traffic"
        ]
        if last is not None:
            said.append(f"judged with bundle {last}, which answered last of this variant's lists")
        return said
