"""`tastemaker experiment report` and `tastemaker experiment holdout-report`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.errors import UsageError
from tastemaker.terminal import console, print_json, print_table
from tastemaker.types import Origin

if TYPE_CHECKING:
    from tastemaker.experiments.reporting.advice import Advice
    from tastemaker.experiments.reporting.comparisons import Interval
    from tastemaker.experiments.reporting.head import ReportHead
    from tastemaker.experiments.reporting.interleaved import InterleavingReport
    from tastemaker.experiments.reporting.report import ExperimentReport

app = typer.Typer()
SETTLE_SECONDS = 60.0
"""How long to wait for what is on its way into the days, where traffic is not live and so has an end."""


@app.command("report")
def report(
    name: str,
    metric: Annotated[
        str | None, typer.Option(help="What it is judged by; the experiment's own where unset.")
    ] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """What an experiment says so far: lifts with their intervals, the split, guardrails, segments, and what to do."""
    from tastemaker.events.drained import await_drained
    from tastemaker.experiments.metrics import metric_of
    from tastemaker.experiments.reporting.head import with_stop
    from tastemaker.experiments.reporting.interleaved import build_interleaving_report
    from tastemaker.experiments.reporting.interleaved_page import render_interleaving
    from tastemaker.experiments.reporting.page import render
    from tastemaker.experiments.reporting.report import build_report
    from tastemaker.experiments.store import ExperimentStore
    from tastemaker.state.connection import open_keys, open_state

    if metric is not None:
        metric_of(metric)
    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        keys = open_keys(client, settings)
        store = ExperimentStore(client, keys)
        definition = store.get(name)
        history = store.history(name)
        if definition.origin != "live":
            await_drained(client, keys, SETTLE_SECONDS)
    if definition.interleaves:
        duel = build_interleaving_report(home, settings.catalogue, definition, metric, level=level)
        duel = with_stop(duel, history)
        return tell(
            duel.model_dump(mode="json"),
            html,
            as_json,
            lambda: render_interleaving(duel),
            lambda: _print_duel(duel),
        )
    found = with_stop(build_report(home, settings.catalogue, definition, metric, level=level), history)
    return tell(
        found.model_dump(mode="json"), html, as_json, lambda: render(found), lambda: print_report(found)
    )


@app.command("holdout-report")
def holdout_report(
    metric: Annotated[str, typer.Option(help="What it is judged by.")] = "clicks_per_request",
    origin: Annotated[str, typer.Option(help="Of the traffic: live or simulator.")] = "live",
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """What all experiments together do: users outside of the holdout against those in it, since the holdout last changed."""
    from tastemaker.experiments.holdout import HoldoutStore
    from tastemaker.experiments.reporting.held_out import build_holdout_report
    from tastemaker.experiments.reporting.page import render
    from tastemaker.state.connection import open_keys, open_state

    if origin not in ("live", "simulator"):
        raise UsageError("--origin", value=origin, limit="live or simulator", mend="correct it")
    traffic: Origin = "live" if origin == "live" else "simulator"
    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        store = HoldoutStore(client, open_keys(client, settings))
        kept, since_ms = store.get(), store.since_ms()
    found = build_holdout_report(
        home, settings.catalogue, kept, since_ms, metric, origin=traffic, level=level
    )
    return tell(
        found.model_dump(mode="json"), html, as_json, lambda: render(found), lambda: print_report(found)
    )


def tell(
    tree: dict[str, Any], html: Path | None, as_json: bool, page: Callable[[], str], show: Callable[[], None]
) -> dict[str, Any]:
    """Prints a report as JSON or by `show`, and writes its page where one is wanted; gives the JSON."""
    from tastemaker.home import write_bytes

    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(html, page().encode())
    if as_json:
        print_json(tree)
    else:
        show()
        if html is not None:
            console.print(f"page: {html}", markup=False)
    return tree


def _print_duel(found: "InterleavingReport") -> None:
    rows = [[t.name, t.alias, t.picks, f"{t.earned:g}", t.wins] for t in found.teams]
    columns = ["variant", "alias", "picks shown", f"earned ({found.metric})", "lists won"]
    _print_head(found, "lists")
    print_table(f"Variants, {found.ties:,} ties", columns, rows)
    for holds, one, p_value in (
        ("for one look", found.preference, found.p_value),
        ("at every look", found.always_valid, found.always_valid_p_value),
    ):
        text = f"preference {one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        console.print(f"{text} {holds}, p {_p(p_value)}", markup=False)
    _print_advice(found.advice)


def _print_head(found: "ReportHead", lists: str = "answers") -> None:
    from tastemaker.experiments.reporting.head import circumstances, told_stop

    console.print(f"{found.experiment}, hypothesis: {found.hypothesis}", markup=False)
    console.print(circumstances(found, lists), markup=False)
    if found.stop is not None:
        console.print(told_stop(found.stop), markup=False)


def print_report(found: "ExperimentReport") -> None:
    """Prints a report's tables and advice."""
    from tastemaker.experiments.reporting.comparisons import Interval

    columns = ["variant", "alias", "units", "requests", "clicks", found.metric, f"{found.level:.0%} interval"]
    rows = [
        [v.name, v.alias, v.units, v.requests, v.clicks, _number(v.value), _interval(v.low, v.high)]
        for v in found.variants
    ]
    _print_head(found)
    print_table("Variants", columns, rows)
    for one in found.lifts:
        interval = Interval(value=one.value, low=one.low, high=one.high)
        text = one.reason or f"{_lift(interval)}, p {_p(one.p_value)}"
        console.print(f"lift of {one.variant}: {text}", markup=False)
    print_table(
        "Metrics",
        ["metric", "variant", "value", "lift", "always valid", "adjusted", "p, corrected"],
        [row for row in _metric_rows(found) if any(row[2:])],
    )
    for guardrail in found.guardrails:
        console.print(f"guardrail {guardrail.state}: {guardrail.reason}", markup=False)
    alarm = "; the split is not what was asked for" if found.srm_alarm else ""
    told = f"p {_p(found.srm_p_value)}, at any look {_p(found.srm_always_valid_p_value)}"
    console.print(f"SRM: {told}{alarm}", markup=False)
    _print_advice(found.advice)


def _print_advice(advice: "Advice") -> None:
    console.print(f"advice: {advice.verdict}: {advice.reason}", markup=False)
    for caution in advice.cautions:
        console.print(f"mind: {caution}", markup=False)


def _metric_rows(found: "ExperimentReport") -> list[list[str]]:
    names = [variant.name for variant in found.variants]
    rows = []
    for metric in found.metrics:
        rows.append([metric.name, names[0], _number(metric.values[0].value), "", "", "", ""])
        for v, one in enumerate(metric.comparisons, 1):
            p_value = _p(one.corrected_p_value)
            lifts = [_lift(one.lift), _lift(one.always_valid), _lift(one.adjusted) or _lift(one.weighted)]
            rows.append(["", one.variant, _number(metric.values[v].value), *lifts, p_value])
    return rows


def _lift(lift: "Interval") -> str:
    from tastemaker.experiments.reporting.words import bounds, percent

    if lift.value is None:
        return ""
    return " ".join(
        [percent(lift.value)]
        + ([] if lift.low is None or lift.high is None else [bounds(lift.low, lift.high)])
    )


def _p(p: float | None) -> str:
    from tastemaker.experiments.reporting.words import p_value

    return "" if p is None else p_value(p)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
