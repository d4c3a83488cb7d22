"""`tastemaker demo`: everything, once, on real data."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.terminal import console, wait_for_interrupt

app = typer.Typer()


@app.command()
def demo(
    ctx: typer.Context,
    data: Annotated[Path | None, typer.Option(help="A MovieLens folder or zip, Parquet or CSV.")] = None,
    columns: Annotated[Path | None, typer.Option(help="YAML that names a table's columns.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Training workers.")] = 2,
    visitors: Annotated[int | None, typer.Option(min=50, help="Simulated visitors an experiment.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated world.")] = 7,
    quick: Annotated[bool, typer.Option(help="Fewer epochs and visitors.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave it serving until Ctrl-C.")] = False,
) -> dict[str, Any]:
    """Import, train, publish, serve, and let a simulated world use it."""
    from tastemaker.playground.demo import Demo, Invoke, print_summary
    from tastemaker.playground.scenario import Scenario

    invoke: Invoke = ctx.obj
    home = context.home()
    console.print(f"home: {home.root}", markup=False)
    scenario = Scenario(
        source=data,
        columns=columns,
        workers=workers,
        visitors=visitors or (200 if quick else 800),
        quick=quick,
        seed=seed,
    )
    with home.lock("demo"):
        report = Demo(invoke, home, scenario).run()
        print_summary(report, home)
        for name, url in report["urls"].items():
            console.print(f"{name}: {url}", markup=False)
        if keep:
            console.print("serving until Ctrl-C")
            with suppress(KeyboardInterrupt):
                wait_for_interrupt()
    return report
