"""How benchmarks measure and what they find: turns of contenders, medians and spreads, targets."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Measured = dict[str, Any]
"""What a contender measured in one turn, by name."""


@dataclass(frozen=True)
class Effort:
    """How much is measured: turns of each contender where a part does not say otherwise. `divide` makes tables and data smaller."""

    turns: int = 5
    steps: int = 200
    divide: int = 1


@dataclass
class Part:
    """What one part found: a table, targets and what to read beside it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    num_turns: int | None = None
    """That it took of each contender; none where it does not go by turns."""

    def target(self, name: str, value: float, target: float, better: str) -> None:
        value = float(value)
        met = value >= target if better == "higher" else value <= target
        self.targets.append({"name": name, "value": value, "target": target, "better": better, "met": met})


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def shown(values: Sequence[float], digits: int = 1, scale: float = 1.0) -> str:
    """The median and, of more values than one, [least, most]."""
    found = [f"{scale * value:,.{digits}f}" for value in spread(values).values()]
    if len(values) == 1:
        return found[0]
    return f"{found[0]} [{found[1]}, {found[2]}]"


def turns(count: int, jobs: dict[str, Callable[[], Measured]]) -> dict[str, list[Measured]]:
    """What each job measured in each of its turns."""
    found: dict[str, list[Measured]] = {name: [] for name in jobs}
    for turn in range(count):
        for name, job in jobs.items():
            print(f"  turn {turn + 1} of {count}: {name}", flush=True)
            found[name].append(job())
    return found


def worst(ranks: list[Measured]) -> Measured:
    return {key: max(rank[key] for rank in ranks) for key in ranks[0]}


def column(found: list[Measured], key: str) -> list[float]:
    return [measured[key] for measured in found]


def ratios(over: list[float], under: list[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]
