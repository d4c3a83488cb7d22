"""What every benchmark writes: benchmarks/out/NAME.json, a dated page in docs/results/, and the command that does it.

A benchmark is parts, each measured when it is asked for; `main` is its command line.
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from turns import Effort, Part

ROOT = Path(__file__).resolve().parents[1]
QUICK = Effort(turns=2, steps=20, divide=20)


def main(
    name: str,
    title: str,
    about: str,
    parts: Mapping[str, Callable[[Effort], Part]],
    reruns: Sequence[str] = (),
    target: str | None = None,
) -> None:
    """Measures the parts that the command line asks for, and keeps each when it is done; a whole run leaves a page.

    Args:
        name: Of the files that are written.
        title: Of the page.
        about: The benchmark's own docstring.
        parts: By name, in the page's order.
        reruns: What had to be measured once more, read at the end.
        target: Of `make`; unset, bench-NAME.
    """
    asked, began = _options(about, parts), time.monotonic()
    found: dict[str, Part] = {}
    for part in asked.parts:
        print(part, flush=True)
        found[part] = parts[part](_effort(quick=asked.quick))
        result = circumstances() | {
            "quick": asked.quick,
            "minutes": (time.monotonic() - began) / 60,
            "reruns": list(reruns),
            "parts": {key: asdict(measured) for key, measured in found.items()},
            "targets": [target for measured in found.values() for target in measured.targets],
        }
        save(name, result, None)
    text = _page(target or f"bench-{name}", title, result, list(found.values()))
    save(name, result, None if asked.quick or asked.only else text)
    print(text)


def circumstances() -> dict[str, Any]:
    """Date, commit (`-dirty` with changes on top of it, docs apart) and machine of what is measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU",
    }


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":!docs")
    return f"{commit or 'unknown'}{'-dirty' if changes else ''}"


def _git(*words: str) -> str:
    found = subprocess.run(
        ["git", "--no-optional-locks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def save(name: str, result: Mapping[str, Any], page: str | None) -> None:
    """Writes the JSON and, where there is one, the page."""
    out = ROOT / "benchmarks" / "out"
    out.mkdir(exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=2, default=_plain) + "\n")
    if page is not None:
        (ROOT / "docs" / "results" / f"{result['date']}-{name}.md").write_text(page)


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def target_table(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each target's value beside its limit."""
    rows = []
    for target in targets:
        sign, mark = ">=" if target["better"] == "higher" else "<=", "met" if target["met"] else "**missed**"
        rows.append((target["name"], f"{target['value']:.4g}", f"{sign} {target['target']:.10g}", mark))
    return table(("target", "value", "limit", ""), rows)


def _page(target: str, title: str, result: Mapping[str, Any], parts: Sequence[Part]) -> str:
    lines = [
        f"# {title}, {result['date']}",
        "",
        f"`make {target}`, commit {result['commit']}, {result['machine']}, {result['minutes']:.0f} minutes. Median "
        "over turns [least, most]; contenders take turns, and ratios are those of one turn.",
    ]
    for part in parts:
        lines += ["", f"## {part.title}", "", *table(part.header, part.rows)]
        lines += [line for note in part.notes for line in ("", note)]
    lines += ["", "## Targets", "", *target_table(result["targets"])]
    return "\n".join(lines) + "\n"


def _options(about: str, parts: Mapping[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"parts, by comma: {','.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, two turns")
    found = parser.parse_args()
    found.parts = found.only.split(",") if found.only else list(parts)
    if unknown := set(found.parts) - parts.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(parts)}")
    return found


def _effort(*, quick: bool) -> Effort:
    if quick:
        return QUICK
    return Effort(turns=15) if os.environ.get("FULL") == "1" else Effort()
