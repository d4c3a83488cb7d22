"""Benchmarks of several parts: each part is kept when it is done, and the page is made of all that are kept.

So a part can be measured again alone, on another day, and the page stays whole. What every result and page holds: see `report`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from report import OUT, circumstances, save, table, target_table, write_page
from turns import Effort, Part

QUICK: Final = Effort(turns=1, steps=20, divide=20)
BY_TURNS: Final = "Median over turns [least, most]; contenders take turns, and ratios are those of one turn, so that a loaded machine counts for both."


def full() -> bool:
    """Whether the command asks for what takes long: FULL=1."""
    return os.environ.get("FULL") == "1"


def by_turns() -> Effort:
    """Five turns of each contender, or three times as many where the command asks for what takes long; parts may take fewer."""
    return Effort(turns=15) if full() else Effort()


def main(
    name: str,
    title: str,
    intro: str,
    about: str,
    parts: Mapping[str, str],
    asked: Sequence[str],
    effort: Effort | None = None,
    together: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Measures the parts that the command line names; the page and benchmarks/out/NAME.json are written anew from all that are kept.

    They are also written where a part fails, of those that were measured before it.

    Args:
        name: Of the page, and of the files benchmarks/out/NAME-PART.json; a quick run's are NAME-PART-quick.json, and on no page.
        title: Of the page.
        intro: What stands above its parts.
        about: The benchmark's own docstring.
        parts: By name, in the page's order: module and function (of an Effort, gives a Part).
        asked: Parts that are measured where none is named.
        effort: Where it is not a quick run.
        together: Parts that read one measurement: with one of them all are measured, so that a page never mixes two.

    Returns:
        Results of all parts that are on the page; of a quick run, which writes none, nothing.
    """
    chosen, quick = _options(about, parts, asked, together)
    whole: dict[str, Any] = {}
    try:
        for group in chosen:
            found = _measured({part: parts[part] for part in group}, QUICK if quick else effort or Effort())
            for part, result in found.items():
                save(file_of(name, part, quick=quick).stem, result)
                print("\n".join(_section(part, result)), flush=True)
            whole |= found
    finally:
        if whole and not quick:
            whole = _write(name, title, intro, parts)
    return {} if quick else whole


def _options(
    about: str, parts: Mapping[str, str], asked: Sequence[str], together: Sequence[Sequence[str]]
) -> tuple[list[tuple[str, ...]], bool]:
    """Parts to measure, those of one measurement as one, and whether quickly."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = "".join(f"; {','.join(group)} are one measurement" for group in together)
    parser.add_argument("--only", help=f"parts, by comma: {','.join(parts)}{one}")
    parser.add_argument(
        "--quick", action="store_true", help="little data, one turn or seed: whether it runs at all"
    )
    found = parser.parse_args()
    chosen = found.only.split(",") if found.only else list(asked)
    if unknown := set(chosen) - parts.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(parts)}")
    group_of = {part: tuple(group) for group in together for part in group}
    return list(dict.fromkeys(group_of.get(part, (part,)) for part in chosen)), found.quick


def file_of(name: str, part: str, *, quick: bool) -> Path:
    """Where a part's result is kept; a quick run's beside the whole one's, which it must not replace."""
    return OUT / f"{name}-{part}{'-quick' if quick else ''}.json"


def kept_of(name: str, parts: Iterable[str]) -> tuple[dict[str, Any], set[str]]:
    """Results of the parts that were measured whole, and which parts were measured quickly.

    Earlier releases kept quick runs in the whole ones' files: these say so themselves.
    """
    whole: dict[str, Any] = {}
    quick = {part for part in parts if file_of(name, part, quick=True).exists()}
    for part in parts:
        file = file_of(name, part, quick=False)
        result = json.loads(file.read_text()) if file.exists() else None
        if result is not None and result["quick"]:
            quick.add(part)
        elif result is not None:
            whole[part] = result
    return whole, quick


def _measured(paths: Mapping[str, str], effort: Effort) -> dict[str, dict[str, Any]]:
    """What parts of one measurement found; commit, load and minutes are those of the whole."""
    began, about = (
        time.monotonic(),
        circumstances() | {"load": os.getloadavg()[1], "quick": effort.divide > 1},
    )
    found = {}
    for part, path in paths.items():
        print(part, flush=True)
        module, function = path.split(":")
        measure: Callable[[Effort], Part] = getattr(import_module(module), function)
        measured = asdict(measure(effort))
        found[part] = {one.name: measured[one.name] for one in fields(Part)}
    about["minutes"] = (time.monotonic() - began) / 60
    return {part: about | {"together": [*paths]} | one for part, one in found.items()}


def _write(name: str, title: str, intro: str, parts: Iterable[str]) -> dict[str, Any]:
    """The page and benchmarks/out/NAME.json, of all parts that are kept; gives those."""
    whole, tried = kept_of(name, parts)
    missing = [
        f"`{part}`{' (as a quick run alone)' if part in tried else ''}" for part in parts if part not in whole
    ]
    date = circumstances()["date"]
    targets = [target for result in whole.values() for target in result["targets"]]
    save(name, {"date": date, "parts": whole, "targets": targets})
    write_page(name, date, _page(title, intro, whole, missing))
    return whole


def _page(title: str, intro: str, found: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> str:
    """All parts that were measured, each with when and where; and those that were not."""
    lines = [f"# {title}", "", intro]
    for part, result in found.items():
        lines += ["", *_section(part, result)]
    if missing:
        lines += ["", "## Not measured", "", f"{', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _section(part: str, result: Mapping[str, Any]) -> list[str]:
    """What one part found, of which run, and its targets. Results of earlier releases tell less of the run."""
    lines = [f"## {result['title']}", "", *table(result["header"], result["rows"])]
    lines += [line for note in result["notes"] for line in ("", note)]
    others = [f"`{other}`" for other in result.get("together", ()) if other != part]
    told = {
        "load": "load {:.1f} when it began",
        "num_turns": "1 turn" if result.get("num_turns") == 1 else "{} turns",
        "minutes": "{:.0f} minutes" + (f" together with {', '.join(others)}" if others else ""),
    }
    words = [result["date"], f"commit {result['commit']}", result["machine"]]
    words += [text.format(result[key]) for key, text in told.items() if result.get(key) is not None]
    unknown = [word for key, word in (("load", "load"), ("minutes", "time")) if result.get(key) is None]
    if unknown:
        words.append(f"{' and '.join(unknown)} not recorded")
    lines += ["", f"Part `{part}`, {', '.join(words)}."]
    if result["targets"]:
        lines += ["", *target_table(result["targets"])]
    return lines
