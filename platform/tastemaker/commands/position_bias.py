"""`tastemaker position-bias`: how far down lists are looked at."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()


@app.command("position-bias")
def position_bias(
    to: Annotated[
        Path | None, typer.Option(help="Write it here, for a recipe's `ranker.fit.click_weights`.")
    ] = None,
    days: Annotated[
        float, typer.Option(min=0.001, max=3650, help="Of the log, up to the newest closed answer.")
    ] = 7.0,
    window_minutes: Annotated[
        float, typer.Option(min=0, help="How long after an answer a click counts.")
    ] = 30.0,
    origin: Annotated[Literal["live", "simulator"], typer.Option(help="Of the answers.")] = "live",
    as_json: Json = False,
) -> dict[str, Any]:
    """Estimate how likely each slot is looked at, from lists whose order was drawn by luck."""
    from tastemaker.offpolicy.judging import Span
    from tastemaker.offpolicy.slots import measure_examination

    span = Span.days(days, time.time_ns() // 1_000_000, round(window_minutes * 60_000), origin)
    told, num_lists = measure_examination(context.settings(), context.home(), span)
    found = {
        "lists": num_lists, "method": told.method, "examination": told.probability_K.tolist(),
        "low": told.low_K.tolist(), "high": told.high_K.tolist(),
    }  # fmt: skip
    if to is not None:
        told.save(to)
    if as_json:
        print_json(found)
        return found
    rows = [
        [slot, f"{p:.3f} [{low:.3f}, {high:.3f}]"]
        for slot, (p, low, high) in enumerate(
            zip(told.probability_K, told.low_K, told.high_K, strict=True), 1
        )
    ]
    print_table(f"Examination, from {num_lists:,} lists", ["slot", "against the first, 95%"], rows)
    if to is not None:
        console.print(f"written to {to}", markup=False)
    return found
