"""What every benchmark writes: benchmarks/out/NAME.json and a dated page in docs/results/, with commit and machine.

Those of several parts: see `kept`.
"""

import json
import os
import platform
import re
import shutil
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


def save(name: str, result: Mapping[str, Any]) -> None:
    """Writes benchmarks/out/NAME.json."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=2, default=_plain) + "\n")


def write_page(name: str, date: str, page: str) -> Path:
    """Writes docs/results/DATE-NAME.md, and beside it the pictures that it shows, out of benchmarks/out; gives where it is.

    A page of that day which has more parts stays, as they may have been measured on another machine: the new one is then written to benchmarks/out.
    """
    file = ROOT / "docs" / "results" / f"{date}-{name}.md"
    if file.exists() and _num_parts(file.read_text()) > _num_parts(page):
        print(
            f"{file} has more parts and stays; the page of what is kept here is {OUT / file.name}", flush=True
        )
        file = OUT / file.name
    file.write_text(page)
    for picture in re.findall(r"!\[[^]]*]\(([\w.-]+)\)", page):
        if (OUT / picture).exists() and file.parent != OUT:
            shutil.copy(OUT / picture, file.with_name(picture))
    return file


def _num_parts(page: str) -> int:
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    return len([title for title in titles if title not in ("## Targets", "## Not measured")])


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
