"""`tastemaker evaluate PLAN.yaml`: models and bundles beside each other on held-out events, click models on held-out clicks."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker import context
from tastemaker.terminal import console, print_json, print_table, stdout_kept

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.data.schema import Dataset


def evaluate_plan(file: Path, page: Path | None, *, as_json: bool) -> dict[str, Any]:
    """Runs the plan, prints what it found and writes the page where one is asked for."""
    from tastemaker.config_sources import read_yaml
    from tastemaker.evaluation.click_plan import CLICKS

    tree = read_yaml(file)
    with stdout_kept(as_json):
        found, render, show = _of_clicks(tree, file) if CLICKS in tree else _of_lists(file)
    if page is not None:
        page.write_text(render(found, f"Evaluation: {file.stem}"), encoding="utf-8")
    if as_json:
        print_json(found)
    else:
        show(found)
        if page is not None:
            console.print(f"page: {page}", markup=False)
    return found


_Found = tuple[dict[str, Any], Callable[[Mapping[str, Any], str], str], Callable[[Mapping[str, Any]], None]]
"""What was found, its page, and how it is printed."""


def _of_lists(file: Path) -> _Found:
    from tastemaker.evaluation.comparison import compare
    from tastemaker.evaluation.comparison_page import render
    from tastemaker.evaluation.plan import read_plan

    plan = read_plan(file)
    return compare(plan, _dataset(plan.data), _open_bundle), render, _show


def _of_clicks(tree: Mapping[str, Any], file: Path) -> _Found:
    from tastemaker.evaluation.click_comparison import compare_clicks
    from tastemaker.evaluation.click_page import render_clicks
    from tastemaker.evaluation.click_plan import read_click_plan

    return compare_clicks(read_click_plan(tree, file)), render_clicks, _show_clicks


def _show_clicks(found: Mapping[str, Any]) -> None:
    from tastemaker.evaluation.click_page import metric_rows, told_rows

    console.print(told_rows(found), markup=False)
    systems = found["systems"]
    rows = [[metric, *(_cell(row, metric) for row in systems)] for metric in metric_rows(found)]
    rows.append(["seconds, fit + probabilities", *(_seconds(row) for row in systems)])
    print_table("Held-out clicks", ["metric", *(row["system"] for row in systems)], rows)
    _show_differences(found, "groups")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def _dataset(source: str | None) -> "Dataset":
    from tastemaker.data.importers import import_events
    from tastemaker.data.log import read_log
    from tastemaker.data.schema import build_dataset

    if source is None:
        return read_log(context.home(), context.settings().catalogue)
    imported = import_events(Path(source), None, time.time_ns() // 1_000_000)
    return build_dataset(imported.interactions, imported.items)


def _open_bundle(name: str) -> "Bundle":
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.store import BundleStore
    from tastemaker.registry.client import Registry

    settings, home = context.settings(), context.home()
    version = Registry(settings, home).version(settings.catalogue, int(name) if name.isdigit() else name)
    return Bundle.open(BundleStore.of(settings, home), version.ref)


def _show(found: Mapping[str, Any]) -> None:
    from tastemaker.evaluation.comparison_page import metric_names

    for fold in found["folds"]:
        console.print(
            f"{fold['fold']}: {fold['num_rows']} rows to learn from, {fold['num_users']} users asked for, "
            f"{fold['num_cold_users']} of them without history",
            markup=False,
        )
    console.print(f"ranked: {found['ranked']}", markup=False)
    systems = found["systems"]
    rows = [[metric, *(_cell(row, metric) for row in systems)] for metric in metric_names(found)]
    rows.append(["seconds, fit + evaluation", *(_seconds(row) for row in systems)])
    print_table("Held-out events", ["metric", *(row["system"] for row in systems)], rows)
    _show_differences(found, "users")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def _show_differences(found: Mapping[str, Any], over: str) -> None:
    for one in found["differences"]:
        interval = f"{one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
        console.print(
            f"{one['system']} - {found['baseline']}: {interval} {one['metric']}, paired over {over}; "
            f"p {one['corrected']:.4f} by {found['correction']}",
            markup=False,
        )


def _cell(row: Mapping[str, Any], metric: str) -> str:
    if row.get(metric) is None:
        return ""
    if f"{metric}_low" not in row:
        return f"{row[metric]:.4f}"
    return f"{row[metric]:.4f} [{row[f'{metric}_low']:.4f}, {row[f'{metric}_high']:.4f}]"


def _seconds(row: Mapping[str, Any]) -> str:
    return f"{row['fit_seconds']:.1f} + {row['evaluation_seconds']:.1f}"
