"""Models beside the tables that were published of them, by the same protocol: `make reproduce`.

Each part trains and evaluates some models; what it found is kept in benchmarks/out/reproduce-PART.json when it is done, and the page
docs/results/DATE-reproduce.md is written from all parts that are there. Parts that take over an hour are run by `make
reproduce-full` (FULL=1), or when they are named: `make reproduce ARGS="--only sequence"`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any, Final

from report import ROOT, circumstances, save, table, target_table
from turns import Effort, Part

OUT: Final = ROOT / "benchmarks" / "out"
PARTS: Final = {
    "topn": "reproduce_topn:topn",
    "topn-bpr": "reproduce_topn:pairwise",
    "topn-more": "reproduce_topn:more",
    "rating-100k": "reproduce_rating:ml_100k",
    "rating-1m": "reproduce_rating:ml_1m",
    "ctr": "reproduce_ctr:ctr",
}
"""Part by part, in the page's order: module and function (of an Effort, gives a Part) that do it in an hour at most."""
LONG: Final = {
    "topn-neural": "reproduce_topn:neural",
    "sasrec": "reproduce_sequence:sasrec",
    "gsasrec": "reproduce_sequence:gsasrec",
    "sasrec-ce": "reproduce_sequence:sasrec_ce",
    "bert4rec": "reproduce_sequence:bert4rec",
    "gru4rec": "reproduce_sequence:gru4rec",
}
"""The same of those that take longer."""


def run(part: str, effort: Effort) -> dict[str, Any]:
    """Measures a part and keeps what it found."""
    module, name = (PARTS | LONG)[part].split(":")
    measure: Callable[[Effort], Part] = getattr(import_module(module), name)
    began = time.monotonic()
    found = asdict(measure(effort))
    result = circumstances() | {"minutes": (time.monotonic() - began) / 60, "quick": effort.divide > 1}
    result |= {key: found[key] for key in ("title", "header", "rows", "targets", "notes", "figures")}
    save(f"reproduce-{part}", result, None)
    return result


def page(found: dict[str, dict[str, Any]]) -> str:
    """All parts that were run, each with when and where."""
    lines = [
        "# Models beside their published figures",
        "",
        "`make reproduce` and `make reproduce-full`. Means over seeds or folds [least, most]; seconds are of one fit. "
        "Settings were chosen on validation data of the first split (EASE and BPR in a few rounds that also printed that split's test figures); item-knn was not tuned.",
    ]
    for part, result in found.items():
        lines += ["", f"## {result['title']}", "", *table(result["header"], result["rows"])]
        lines += [line for note in result["notes"] for line in ("", note)]
        where = f"{result['date']}, commit {result['commit']}, {result['machine']}"
        lines += ["", f"Part `{part}`, {where}, {result['minutes']:.0f} minutes."]
        if result["targets"]:
            lines += ["", *target_table(result["targets"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parts = PARTS | LONG
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"parts, by comma: {','.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs: whether it runs at all")
    asked = parser.parse_args()
    full = os.environ.get("FULL") == "1"
    chosen = asked.only.split(",") if asked.only else list(parts if full else PARTS)
    if unknown := set(chosen) - parts.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(parts)}")
    for part in chosen:
        print(part, flush=True)
        result = run(part, Effort(divide=20) if asked.quick else Effort())
        print("\n".join(target_table(result["targets"])), flush=True)
    files = {part: OUT / f"reproduce-{part}.json" for part in parts}
    kept = {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}
    if whole := {part: result for part, result in kept.items() if not result["quick"]}:
        save("reproduce", {"date": circumstances()["date"], "parts": whole}, page(whole))


if __name__ == "__main__":
    main()
