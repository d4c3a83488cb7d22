"""The paper plan of docs/scaling.md, evaluated and held against a small run: `make bench-scaling`.

Writes the page's tables anew between their marks, and benchmarks/out/scaling.json. ARGS="--set price_per_gpu_hour=4"
prints the plan under other assumptions and writes nothing.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from report import ROOT, circumstances, save
from scaling_check import SMALL, SMALL_RANKS, counts
from scaling_plan import ASSUMPTIONS, GPUS, PER_CLUSTER, QUANTITIES, evaluate, formula

PAGE = ROOT / "docs" / "scaling.md"
TOLERANCE = 0.01
"""Share by which counted bytes may differ from their formula: files' headers, and chance in which rank holds an id."""
_SCALES = {
    "bytes": (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)),
    "seconds": (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6)),
}
_NUMBER = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1))


def shown(value: float, unit: str) -> str:
    """A value for people, three digits of it."""
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "dollars":
        return f"${value:,.2f}"
    scales = _SCALES.get(unit, _NUMBER)
    name, scale = next((scale for scale in scales if value >= scale[1]), scales[-1])
    return f"{float(f'{value / scale:.3g}'):,g} {name}".strip()


def summary(found: Mapping[str, Any]) -> str:
    """What the plan comes to, in sentences."""
    rows, columns = (
        [shown(v, "per second") for v in found[name]] for name in ("samples", "samples_column_wise")
    )
    cost = [shown(value, "dollars") for value in found["cost"]]
    price = shown(found["price_per_gpu_hour"], "dollars")
    return f"""\
- **Memory decides the smallest cluster.** Tables and optimizer state take {_need(found, "fp16")}; {_need(found, "fp32")}.
- **Speed does not.** A day's events in {found["window_hours"]:g} hours are {shown(found["samples_needed"], "per second")}
  samples/s; {GPUS[0]} GPUs reach {rows[0]} on paper.
- **Between nodes the network decides, and more GPUs learn no faster**: {rows[1]} samples/s on {GPUS[1]} and {rows[-1]} on
  {GPUS[-1]} row_wise, {columns[1]} and {columns[-1]} column_wise. Stay within a node while memory allows.
- **A retrain costs {cost[0]} on {GPUS[0]} GPUs and {cost[-1]} on {GPUS[-1]}**, at {price} per GPU and hour."""


def _need(found: Mapping[str, Any], kind: str) -> str:
    fitting = [gpus for gpus, fits in zip(GPUS, found[f"fits_{kind}"], strict=True) if fits]
    size = shown(found[f"tables_{kind}"], "bytes")
    return f"{size} in {kind}, which {f'fit {fitting[0]} GPUs' if fitting else 'none of these clusters hold'}"


def blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """What the page quotes, by name, as Markdown."""
    made = {"summary": summary(found)}
    for name, group in ASSUMPTIONS.items():
        rows = [(f"`{a.name}`", f"{a.value:,.6g}", a.text) for a in group]
        made[name] = table(("assumption", "value", "what"), rows)
    for name, group in QUANTITIES.items():
        rows = [(f"`{q.name}`", q.text, f"`{q.formula}`", shown(found[q.name], q.unit)) for q in group]
        made[name] = table(("quantity", "what", "formula", "value"), rows)
    for name, group in PER_CLUSTER.items():
        rows = [
            (f"`{q.name}`", q.text, f"`{q.formula}`", *(shown(value, q.unit) for value in found[q.name]))
            for q in group
        ]
        made[name] = table(("quantity", "what", "formula", *(f"{gpus} GPUs" for gpus in GPUS)), rows)
    return made


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def with_blocks(page: str, made: Mapping[str, str]) -> str:
    """The page, with what stands between the marks of each block replaced."""
    for name, text in made.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/scaling.md has no block {name}")
        page = before + begin + text + end + after
    return page


def checks() -> list[dict[str, Any]]:
    """What a small run counted, beside what the plan's formulas say of one of its size."""
    found = evaluate(SMALL, [SMALL_RANKS])
    small = {name: value[0] if isinstance(value, list) else value for name, value in found.items()}
    rows = []
    for name, expression, counted in counts():
        expected = formula(expression, small)
        error = abs(counted / expected - 1)
        rows.append(
            {"name": name, "formula": expression, "expected": expected, "counted": counted, "value": error,
             "target": TOLERANCE, "better": "lower", "met": error <= TOLERANCE}
        )  # fmt: skip
    return rows


def check_table(rows: Sequence[Mapping[str, Any]]) -> str:
    size = " x ".join(f"{SMALL[name]:,}" for name in ("users", "items", "dim"))
    lines = [
        (row["name"], f"`{row['formula']}`", f"{row['expected']:,.0f}", f"{row['counted']:,.0f}", f"{row['value']:.2%}")
        for row in rows
    ]  # fmt: skip
    return f"At {size}, {SMALL_RANKS} ranks:\n\n" + table(
        ("bytes of", "formula", "gives", "counted", "off by"), lines
    )


def options() -> dict[str, float]:
    """The assumptions that the command line changes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes")
    changes = {}
    for change in parser.parse_args().changes:
        name, _, value = change.partition("=")
        try:
            changes[name] = float(value)
        except ValueError:
            parser.error(f"--set {change}: must be NAME=VALUE with a number")
    try:
        evaluate(changes)
    except KeyError as error:
        parser.error(f"--set: {error.args[0]}")
    return changes


def main() -> None:
    changes = options()
    found = evaluate(changes)
    made = blocks(found)
    if changes:
        print(f"With {changes}:")
        print("\n\n".join(text for name, text in made.items() if name not in ASSUMPTIONS))
        return
    checked = checks()
    page = with_blocks(PAGE.read_text(encoding="utf-8"), made | {"checks": check_table(checked)})
    PAGE.write_text(page, encoding="utf-8")
    save("scaling", circumstances() | {"gpus": GPUS, "plan": found, "targets": checked})
    print(page)


if __name__ == "__main__":
    main()
