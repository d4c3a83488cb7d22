"""What every benchmark writes: benchmarks/out/NAME.json and a dated page in docs/results/, with commit and machine.

Those of several parts: see `kept`.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"


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
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=2, default=_plain) + "\n")
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
