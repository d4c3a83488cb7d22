"""Training's numbers, measured side by side in one run, beside their targets: `make bench-training`.

    plain       the sharded job against DDP on the same DLRM: samples a second
    memory      the same jobs with tables ten times as large: peak memory of a rank
    ranks       one and two ranks on the same two cores: what distribution costs, and where it goes
    tables      a step as the tables grow
    rows        peak memory of a rank as the data grow
    checkpoint  how long a save holds training up
    input       rows a second from Parquet to the step, beside a bare scan

Contenders take turns (A B A B), each job in processes of its own. Every figure is the median over the turns [least,
most]; ratios are those of one turn. Writes benchmarks/out/training.json and, of a whole run, docs/results/DATE-training.md.
`--only plain,ranks` runs some parts, `--quick` small ones, FULL=1 takes three times as many turns.
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training_parts import PARTS
from training_ranks import reruns
from training_turns import Effort, Part

ROOT = Path(__file__).resolve().parents[1]


def page(result: dict[str, Any], parts: Sequence[Part]) -> str:
    lines = [
        f"# Distributed training, {result['date']}",
        "",
        f"`make bench-training`, commit {result['commit']}, {result['machine']}, {result['minutes']:.0f} minutes. Median "
        "over turns [least, most]; contenders take turns, each job in processes of its own; ratios are those of one turn.",
    ]
    for part in parts:
        lines += ["", f"## {part.title}", "", *table(part.header, part.rows)]
        lines += [line for note in part.notes for line in ("", note)]
    lines += [
        "",
        "## Targets",
        "",
        *table(("target", "value", "limit", ""), map(target_row, result["targets"])),
    ]
    return "\n".join(lines) + "\n"


def target_row(target: dict[str, Any]) -> tuple[str, ...]:
    sign, mark = ">=" if target["better"] == "higher" else "<=", "met" if target["met"] else "**missed**"
    return target["name"], f"{target['value']:.3f}", f"{sign} {target['target']}", mark


def table(header: Sequence[str], rows: Any) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"parts, by comma: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small tables, two turns")
    found = parser.parse_args()
    found.parts = found.only.split(",") if found.only else list(PARTS)
    if unknown := set(found.parts) - PARTS.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return found


def effort(*, quick: bool) -> Effort:
    if quick:
        return Effort(turns=2, steps=20, divide=20)
    return Effort(turns=15) if os.environ.get("FULL") == "1" else Effort()


def main() -> None:
    asked, began = options(), time.monotonic()
    parts = []
    for name in asked.parts:
        print(name, flush=True)
        parts.append(PARTS[name](effort(quick=asked.quick)))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU",
        "quick": asked.quick,
        "minutes": (time.monotonic() - began) / 60,
        "reruns": reruns,
        "parts": {name: asdict(part) for name, part in zip(asked.parts, parts, strict=True)},
        "targets": [target for part in parts for target in part.targets],
    }
    out = ROOT / "benchmarks" / "out"
    out.mkdir(exist_ok=True)
    (out / "training.json").write_text(json.dumps(result, indent=2) + "\n")
    text = page(result, parts)
    if not (asked.quick or asked.only):
        (ROOT / "docs" / "results" / f"{result['date']}-training.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
