"""`tastemaker versions` and `tastemaker shadow`: what serves now, and what the shadow would have."""

import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()
shadow = typer.Typer(help="The version that answers beside the champion and is never shown.")
app.add_typer(shadow, name="shadow")
_HOUR_MS = 3_600_000


@app.command("versions")
def versions(as_json: Json = False) -> list[dict[str, Any]]:
    """Show which version each alias answers from, and why another does not."""
    from tastemaker.registry.overview import read_overview
    from tastemaker.state.connection import connect, open_keys, url_of

    settings = context.settings()
    with connect(url_of(settings, context.home())) as client:
        found = read_overview(client, open_keys(client, settings))
    rows = [asdict(state) | {"outcome": state.outcome} for state in found]
    if as_json:
        print_json(rows)
        return rows
    table = [
        [s.alias, s.version, s.bundle, s.outcome, f"{s.answering} of {s.gateways}", _reasons(s.refused)]
        for s in found
    ]
    print_table("Serving", ["alias", "version", "bundle", "state", "gateways", "refused"], table)
    return rows


@shadow.command("report")
def report(
    hours: Annotated[float, typer.Option(help="Look so far back.")] = 24.0,
    origin: Annotated[Literal["live", "simulator"], typer.Option(help="Of the requests.")] = "live",
    as_json: Json = False,
) -> dict[str, Any]:
    """Compare what the shadow would have shown with what was."""
    from tastemaker.experiments.shadow import shadow_report

    settings, now_ms = context.settings(), time.time_ns() // 1_000_000
    since_ms = now_ms - round(hours * _HOUR_MS)
    found = asdict(shadow_report(context.home(), settings.catalogue, since_ms, now_ms, origin))
    if as_json:
        print_json(found)
    else:
        table = [[name.replace("_", " "), _short(value)] for name, value in found.items()]
        print_table(f"Shadow {found['bundle']}, {hours:g} h, {origin}", ["what", "value"], table)
        console.print(
            "agreement says how different it is, not how good: that takes an experiment", markup=False
        )
    return found


def _reasons(refused: Any) -> str:
    return "; ".join(f"{stage}: {reason}" for stage, reason in refused.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return ", ".join(value)
    return "" if value is None else str(value)
