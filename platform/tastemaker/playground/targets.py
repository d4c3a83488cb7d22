"""The figures that the demo is held to, each with its limit, met or not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """One figure. `better` says on which side of `target` it should lie; equal is met."""

    name: str
    value: float
    target: float
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        """Whether the value lies on the right side."""
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        return asdict(self) | {"met": self.met}


def quality_targets(offline: Mapping[str, Any]) -> list[Target]:
    """Targets on the offline table (default data, not `--quick`).

    Args:
        offline: What `tastemaker evaluate` returned: rows by system name, and paired comparisons.
    """
    rows = {row["system"]: row for row in offline["rows"]}
    before, after = rows["pipeline before reranking"], rows["pipeline"]
    return [
        Target("two-tower NDCG@10", rows["two-tower"]["ndcg@10"], 0.088, "higher"),
        Target("two-tower Recall@50", rows["two-tower"]["recall@50"], 0.26, "higher"),
        Target("pipeline NDCG@10", after["ndcg@10"], 0.100, "higher"),
        Target("pipeline over best baseline, lower bound of paired NDCG@10",
               offline["paired"]["pipeline - best baseline"]["low"], 0.0, "higher"),
        Target("reranking's cost in NDCG@10", before["ndcg@10"] - after["ndcg@10"], 0.003, "lower"),
    ]  # fmt: skip


def experiment_targets(experiments: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    """Targets on the experiments: intervals cover the world's truth, and the planted loser is found."""
    found = []
    for name, result in experiments.items():
        lift, truth = result["lift"], result["exact_lift"]
        covered = lift["low_simultaneous"] <= truth <= lift["high_simultaneous"]
        found.append(
            Target(f"{name}: interval covers the exact lift (1 = yes)", float(covered), 1.0, "higher")
        )
    found.append(
        Target(
            "planted loser found: upper bound of its lift",
            experiments["planted"]["lift"]["high"],
            0.0,
            "lower",
        )
    )
    for name, result in experiments.items():
        found.append(Target(f"{name}: SRM p-value", result["srm_p_value"], 0.001, "higher"))
    return found


def traffic_targets(serving: Mapping[str, Any], quick: bool) -> list[Target]:
    """Targets on the simulated traffic: size, time, click rate."""
    found = [
        Target("click rate of shown items, least", serving["click_rate"], 0.05, "higher"),
        Target("click rate of shown items, most", serving["click_rate"], 0.15, "lower"),
        Target("failed requests", serving["failed"], 0, "lower"),
    ]
    if not quick:
        found += [
            Target("visitors an experiment", serving["visitors_per_experiment"], 800, "higher"),
            Target("requests in all", serving["requests"], 6000 * 0.95, "higher"),
            Target("seconds of simulated traffic", serving["seconds"], 90, "lower"),
        ]
    return found


def run_targets(seconds: float, peak_bytes: int, install_seconds: float | None, quick: bool) -> list[Target]:
    """Targets on the demo itself."""
    found = [
        Target("demo, seconds", round(seconds, 1), 120 if quick else 360, "lower"),
        Target("peak memory of the process tree, MiB", round(peak_bytes / 2**20), 6144, "lower"),
    ]
    if install_seconds is not None:
        found.append(Target("install, seconds", install_seconds, 300, "lower"))
    return found
