"""One part of the reproductions: a model's figures over seeds, beside what was published."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from turns import Part

T = TypeVar("T")


@dataclass
class Reproduction(Part):
    """A table of ours beside the published, and what must be met."""

    header: tuple[str, ...] = ("model", "metric", "ours", "published", "difference", "seeds", "seconds")
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def timed(self, model: str, make: Callable[[], T]) -> T:
        """What `make` gives; how long it took counts for the model."""
        began = time.monotonic()
        made = make()
        self.seconds.setdefault(model, []).append(time.monotonic() - began)
        return made

    def add(
        self,
        model: str,
        metric: str,
        ours: Sequence[float],
        published: float | None = None,
        limit: float | None = None,
        better: str = "higher",
    ) -> None:
        """A row, of one figure by seed (or fold); a target where there is a limit to their mean.

        Args:
            model: Its name.
            metric: What the figures are.
            ours: By seed.
            published: Theirs; unset, nobody published one in this protocol.
            limit: The worst mean that is as good as the published.
            better: higher or lower.
        """
        mean = statistics.fmean(ours)
        spread = f" [{min(ours):.4f}, {max(ours):.4f}]" if len(ours) > 1 else ""
        theirs, off = ("", "") if published is None else (f"{published:.4f}", f"{mean - published:+.4f}")
        seconds = self.seconds.get(model, [])
        took = f"{statistics.fmean(seconds):.0f}" if seconds else ""
        self.rows.append((model, metric, f"{mean:.4f}{spread}", theirs, off, str(len(ours)), took))
        self.figures[f"{model} {metric}"] = {"ours": list(ours), "published": published, "seconds": seconds}
        print("  " + " | ".join(self.rows[-1]), flush=True)
        if limit is not None:
            self.target(f"{model}, {metric}", mean, limit, better)
