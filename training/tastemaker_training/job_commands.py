"""`tastemaker refresh-users`, `batch`, `retrain` and `tune`: what schedules run. Imports stay inside the commands."""

import functools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table, stdout_kept

if TYPE_CHECKING:
    from tastemaker_training.jobs.preflight import Preflight

app = typer.Typer()
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Look at config, data and connections, and say what would be done; 1 where it cannot.",
    ),
]


@app.command("refresh-users")
def refresh_users(dry_run: DryRun = False, as_json: Json = False) -> dict[str, Any]:
    """Recompute all users' vectors from the log with the champion (hourly)."""
    if dry_run:
        from tastemaker_training.jobs import preflight

        return _tell(preflight.refresh_users(context.settings(), context.home()), as_json)
    from tastemaker_training.jobs.refresh import refresh_users as refresh

    refreshed = refresh(context.settings(), context.home())
    summary = refreshed.summary()
    if as_json:
        print_json(summary)
    else:
        print_table(f"Users' vectors: {refreshed.outcome}", ["what", "value"], summary.items())
    return summary


@app.command("batch")
def batch(
    k: Annotated[int, typer.Option(help="Items of a list.")] = 50,
    keep_hours: Annotated[float, typer.Option(help="How long serving may fall back on a list.")] = 24.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Recommend to all users of the log with the champion: Parquet, and lists for serving to fall back on (daily)."""
    keep_seconds = round(3600 * keep_hours)
    if dry_run:
        from tastemaker_training.jobs import preflight

        return _tell(preflight.batch(context.settings(), context.home(), k, keep_seconds), as_json)
    from tastemaker_training.jobs.batch import recommend_all

    with stdout_kept(as_json):
        done = recommend_all(context.settings(), context.home(), k, keep_seconds)
    if as_json:
        print_json(done.summary())
    else:
        print_table(f"Users' lists: {done.outcome}", ["what", "value"], done.summary().items())
    return done.summary()


@app.command("retrain")
def retrain(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe, or a YAML file.")],
    to: Annotated[str, typer.Option(help="Alias that a version which passes the gates gets.")] = "challenger",
    workers: Annotated[int, typer.Option(help="Ranks to train on; each needs a core.")] = 1,
    quick: Annotated[
        bool, typer.Option(help="Apply the recipe's `quick` keys: a trial of the path.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Train against the data gate; needs a reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the version and in the history.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Train on the log as of now, from the champion's weights, and release the result behind the gates (nightly)."""
    from tastemaker_training.jobs.schedules import Order, print_retrained
    from tastemaker_training.jobs.schedules import retrain as run
    from tastemaker_training.plan.recipe import read_recipe

    order = Order(read_recipe(recipe, quick=quick), workers, to, force, reason)
    if dry_run:
        from tastemaker_training.jobs import preflight

        return _tell(preflight.retrain(context.settings(), context.home(), order), as_json)
    with stdout_kept(as_json):
        done = run(context.settings(), context.home(), order)
    if as_json:
        print_json(done.summary())
    else:
        print_retrained(done)
    if done.refusal is not None:
        raise done.refusal
    return done.summary()


@app.command("tune")
def tune(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe, or a YAML file, with search spaces.")],
    part: Annotated[
        str | None, typer.Option(help="two_tower or ranker; unset takes the first that searches.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all, the defaults' own included; unset asks the recipe.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Ranks of each trial; each needs a core.")] = 1,
    quick: Annotated[
        bool, typer.Option(help="Apply the recipe's `quick` keys: a trial of the path.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on with the recipe's newest study.")] = False,
    publish: Annotated[bool, typer.Option(help="Train the best whole and publish it as a candidate.")] = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Search the values beside a recipe's defaults, and publish the best as a candidate (monthly)."""
    from tastemaker_training.studies.report import print_found
    from tastemaker_training.studies.tuning import tune as run
    from tastemaker_training.studies.wanted import wanted_study

    if dry_run:
        from tastemaker_training.jobs import preflight

        settings, home = context.settings(), context.home()
        asked = functools.partial(
            wanted_study, settings, recipe, workers, part=part, num_trials=trials, quick=quick
        )
        return _tell(preflight.tune(settings, home, asked, resume=resume, publish=publish), as_json)
    with stdout_kept(as_json):
        study, found = run(
            context.settings(), context.home(), recipe, workers,
            part=part, num_trials=trials, quick=quick, resume=resume, publish=publish,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        print_found(study, found)
    return found


def _tell(flight: "Preflight", as_json: bool) -> dict[str, Any]:
    """What a dry run found.

    Raises:
        typer.Exit: With 1, where the job could not begin.
    """
    if as_json:
        print_json(flight.summary())
    else:
        for one in flight.findings:
            console.print(f"{one.outcome:8}{one.check}: {one.detail}", markup=False)
            if one.mend:
                console.print(f"{'':8}-> {one.mend}", markup=False)
        for step in flight.steps:
            console.print(f"would   {step}", markup=False)
    if not flight.is_fit:
        raise typer.Exit(1)
    return flight.summary()
