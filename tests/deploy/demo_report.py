"""Fails where the demo's report lacks what it promises, or where its time target was missed."""

import json
import sys
from pathlib import Path

KEYS = ("schema", "versions", "seeds", "timings_seconds", "data", "offline", "bundles", "serving", "experiments",
        "peak_memory_mb", "targets", "parameters")  # fmt: skip
EXPERIMENTS = ("a-a", "planted", "fixed", "thompson")


def main(path: str) -> int:
    report = json.loads(Path(path).read_text())
    problems = [f"key {key} is missing" for key in KEYS if key not in report]
    problems += [f"experiment {e} is missing" for e in EXPERIMENTS if e not in report.get("experiments", {})]
    for target in report.get("targets", []):
        mark = "met   " if target["met"] else "MISSED"
        print(f"{mark} {target['name']}: {target['value']} ({target['better']} than {target['target']})")  # noqa: T201
    if not report.get("targets"):
        problems.append("no targets")
    if not (Path(path).parent / "report.html").stat().st_size:
        problems.append("report.html is empty")
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
