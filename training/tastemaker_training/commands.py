"""`tastemaker train`, `evaluate` and `publish`. Imports stay inside the commands: `--help` must be quick."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.errors import UsageError
from tastemaker.terminal import console, print_json, print_table, stdout_kept
from tastemaker_training import job_commands

app = typer.Typer()
app.registered_commands += job_commands.app.registered_commands
RunName = Annotated[str, typer.Argument(help="A recipe, for its latest run, or the id of a run.")]


@app.command("train")
def train(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Packaged recipes, or YAML files.")
    ],
    workers: Annotated[int, typer.Option(help="Ranks to train on; each needs a core.")] = 1,
    quick: Annotated[
        bool, typer.Option(help="Apply the recipes' `quick` keys: a trial of the path.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on from the checkpoints of a training that was interrupted.")
    ] = False,
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Train all models of recipes and evaluate them on held-out events; what recipes share is trained once."""
    from tastemaker_training.plan.recipe import read_recipe, recipe_text
    from tastemaker_training.runs.run import train as train_recipes

    resolved = [read_recipe(recipe, quick=quick) for recipe in recipes]
    if not as_json:
        for recipe in resolved:
            console.print(recipe_text(recipe), markup=False)
    with stdout_kept(as_json):
        runs = train_recipes(context.settings(), context.home(), resolved, workers, resume=resume)
    if as_json:
        print_json([run.summary() for run in runs])
    else:
        for run in runs:
            rows = [(step, f"{seconds:.1f}") for step, seconds in run.timings.items()]
            print_table(f"Run {run.id}", ["step", "seconds"], rows)
            console.print(f"see it with `tastemaker evaluate {run.recipe.name}`", markup=False)
    return [run.summary() for run in runs]


@app.command("evaluate")
def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|PLAN.yaml",
            help="A recipe, for its latest run, or the id of a run; or a plan of what to compare.",
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="Write the page of a plan's comparison here.")] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Show how a run's models did on the held-out test events, or compare models of the zoo and bundles by a plan."""
    from tastemaker.commands.evaluation import evaluate_plan
    from tastemaker_training.plan.recipe import is_recipe
    from tastemaker_training.runs.evaluate import print_offline
    from tastemaker_training.runs.run_record import open_run

    file = Path(run)
    if file.suffix in (".yaml", ".yml") and file.exists() and not is_recipe(file):
        return evaluate_plan(file, html, as_json=as_json)
    if html is not None:
        raise UsageError("--html is of plans", mend="give a PLAN.yaml, or leave it out")
    offline = open_run(context.home(), context.settings().catalogue, run).offline()
    if as_json:
        print_json(offline)
    else:
        print_offline(offline)
    return offline


@app.command("publish")
def publish(
    run: RunName,
    plant_worse: Annotated[
        bool,
        typer.Option("--plant-worse", hidden=True, help="Publish a ranker that goes against its sources."),
    ] = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Write a run's bundle and register it as a new version of the catalogue."""
    from tastemaker_training.runs.publish import publish_planted, publish_run
    from tastemaker_training.runs.run_record import open_run

    settings, home = context.settings(), context.home()
    opened = open_run(home, settings.catalogue, run)
    published = (publish_planted if plant_worse else publish_run)(settings, home, opened)
    if as_json:
        print_json(published)
    else:
        console.print(
            f"version {published['version']} of {settings.catalogue}: bundle {published['bundle']}",
            markup=False,
        )
    return published


@app.command("questions")
def questions(
    k: Annotated[int, typer.Option(help="Items to ask about.")] = 10, as_json: Json = False
) -> list[dict[str, Any]]:
    """Say which items to ask a new user about: known to many, disputed, and together answerable by most."""
    from dataclasses import asdict

    from tastemaker.data.log import read_log
    from tastemaker.features.elicitation import questions as choose

    found = [asdict(q) for q in choose(read_log(context.home(), context.settings().catalogue), k)]
    if as_json:
        print_json(found)
    else:
        figures = ("worth", "known", "reached")
        rows = [(q["title"], q["item_id"], *(f"{q[name]:.3f}" for name in figures)) for q in found]
        print_table(
            "Questions for new users", ["title", "item", "worth", "can answer", "can answer any so far"], rows
        )
    return found


@app.command("audience")
def audience(
    item: Annotated[str, typer.Argument(help="An item of the champion.")],
    k: Annotated[int, typer.Option(help="Users to name.")] = 20,
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Say which users an item should be shown to first, by the vectors of `refresh-users`."""
    from tastemaker_training.jobs.audience import audience as find

    found = [member.as_dict() for member in find(context.settings(), context.home(), item, k)]
    if as_json:
        print_json(found)
    else:
        rows = [(member["user_id"], f"{member['score']:.4f}") for member in found]
        print_table(f"Audience of {item}", ["user", "score"], rows)
    return found
