"""What is kept of each decision of a log, column by column, in the narrowest numbers.

Shape letters: R decisions, V variants, P different vectors of propensities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tastemaker.experiments.reporting.earned import Tally
from tastemaker.experiments.reporting.narrow import Narrow
from tastemaker.types import Bool, Float64, Int64, Strings


@dataclass(frozen=True, slots=True)
class Rows:
    """One row per decision, by time and then by id.

    What few decisions differ in is written down once: `share_R` are rows of `shares_PV`, `device_R` and `country_R` places in `devices` and
    `countries`. `lag_ms_R` is how long after its own time the log took a decision. `list_R` is the number of its list.
    """

    unit_R: Narrow
    variant_R: Narrow
    epoch_R: Narrow
    shown_ms_R: Int64
    lag_ms_R: Narrow
    share_R: Narrow
    degraded_R: Narrow
    latency_ms_R: Narrow
    device_R: Narrow
    country_R: Narrow
    list_R: Narrow
    earned: Mapping[Tally, Narrow]
    shares_PV: Float64
    devices: Strings
    countries: Strings

    def __len__(self) -> int:
        return len(self.unit_R)

    def take(self, keep_R: Bool) -> "Rows":
        """Those of a mask."""
        return replace(
            self,
            unit_R=self.unit_R[keep_R],
            variant_R=self.variant_R[keep_R],
            epoch_R=self.epoch_R[keep_R],
            shown_ms_R=self.shown_ms_R[keep_R],
            lag_ms_R=self.lag_ms_R[keep_R],
            share_R=self.share_R[keep_R],
            degraded_R=self.degraded_R[keep_R],
            latency_ms_R=self.latency_ms_R[keep_R],
            device_R=self.device_R[keep_R],
            country_R=self.country_R[keep_R],
            list_R=self.list_R[keep_R],
            earned={tally: column[keep_R] for tally, column in self.earned.items()},
        )
