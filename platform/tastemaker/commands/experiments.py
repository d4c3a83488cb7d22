"""`tastemaker experiment …`: experiments are made, started, ramped, changed and stopped; whatever runs follows within a second."""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands import experiment_plan, experiment_report
from tastemaker.commands.options import Json
from tastemaker.errors import UsageError
from tastemaker.terminal import console, print_json, print_table, time_of

if TYPE_CHECKING:
    import redis

    from tastemaker.experiments.definition import Experiment
    from tastemaker.experiments.history import Change
    from tastemaker.experiments.store import ExperimentStore
    from tastemaker.state.keys import Keys

app = typer.Typer()
experiment = typer.Typer(help="A/B experiments.")
app.add_typer(experiment, name="experiment")
experiment.registered_commands += experiment_report.app.registered_commands
experiment.registered_commands += experiment_plan.app.registered_commands
File = Annotated[Path, typer.Argument(help="YAML of one experiment.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]
Reassign = Annotated[
    bool, typer.Option("--reassign", help="Let units that were assigned get something else.")
]


@contextmanager
def experiment_store() -> Iterator[tuple["redis.Redis", "Keys", "ExperimentStore"]]:
    """The catalogue's state and its experiments."""
    from tastemaker.experiments.store import ExperimentStore
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        keys = open_keys(client, settings)
        yield client, keys, ExperimentStore(client, keys)


@experiment.command("create")
def create(file: File, reason: Reason = "", as_json: Json = False) -> dict[str, Any]:
    """Keep the experiment that FILE defines as a draft, which assigns nobody."""
    definition = _read(file, "draft")
    with experiment_store() as (_, _, store):
        kept = store.create(definition, actor=getpass.getuser(), reason=reason)
    return _told(kept, as_json)


@experiment.command("start")
def start(
    which: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="YAML of a new experiment, or one that is kept.")
    ],
    reason: Reason = "",
    reassign: Reassign = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Start the experiment that FILE defines, or a draft or stopped one."""
    from tastemaker.experiments.router import SNAPSHOT_SECONDS

    file, who = Path(which), getpass.getuser()
    definition = _read(file, "running") if file.suffix in (".yaml", ".yml") or file.is_file() else None
    with experiment_store() as (_, _, store):
        if definition is None:
            kept = store.start(which, actor=who, reason=reason, reassign=reassign)
        else:
            kept = store.create(definition, actor=who, reason=reason)
    time.sleep(SNAPSHOT_SECONDS)  # every router has read it by then
    return _told(kept, as_json)


@experiment.command("ramp")
def ramp(
    name: str,
    traffic: Annotated[
        float | None, typer.Option(help="Share of the layer's units, in place of the steps to come.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Of a fixed split, such as 0.9,0.1.")] = None,
    reason: Reason = "",
    reassign: Reassign = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Let more units take part; those that do keep what they have."""
    if traffic is None and weights is None:
        raise UsageError("--traffic and --weights are missing", mend="give one of them")
    split = None if weights is None else _numbers(weights)
    with experiment_store() as (_, _, store):
        kept = store.ramp(
            name, traffic=traffic, weights=split, actor=getpass.getuser(), reason=reason, reassign=reassign
        )
    return _told(kept, as_json)


@experiment.command("edit")
def edit(
    file: File, reason: Reason = "", reassign: Reassign = False, as_json: Json = False
) -> dict[str, Any]:
    """Replace the definition of an experiment by that in FILE."""
    definition = _read(file, "draft")
    with experiment_store() as (_, _, store):
        kept = store.edit(definition, actor=getpass.getuser(), reason=reason, reassign=reassign)
    return _told(kept, as_json)


@experiment.command("stop")
def stop(name: str, reason: Reason = "", as_json: Json = False) -> dict[str, Any]:
    """Stop an experiment; its data stays."""
    with experiment_store() as (_, _, store):
        kept = store.stop(name, actor=getpass.getuser(), reason=reason)
    return _told(kept, as_json)


@experiment.command("delete")
def delete(name: str, reason: Reason = "") -> int:
    """Remove a draft."""
    with experiment_store() as (_, _, store):
        store.delete(name, actor=getpass.getuser(), reason=reason)
    console.print(f"experiment {name} is deleted", markup=False)
    return 0


@experiment.command("show")
def show(name: str, as_json: Json = False) -> dict[str, Any]:
    """One experiment and all that was done to it."""
    with experiment_store() as (_, _, store):
        found, changes = store.get(name), store.history(name)
    tree = {
        "experiment": found.model_dump(mode="json"),
        "changes": [change.model_dump(mode="json") for change in changes],
    }
    if as_json:
        print_json(tree)
        return tree
    console.print(_sentence(found), markup=False)
    console.print(f"hypothesis: {found.hypothesis}", markup=False)
    rows = [(time_of(c.at_ms), c.version, c.action, c.actor, _changed(c), c.reason) for c in changes]
    print_table("Changes", ["at (UTC)", "version", "action", "by", "changed", "reason"], rows)
    return tree


@experiment.command("list")
def list_(as_json: Json = False) -> list[dict[str, Any]]:
    """All experiments: drafts, running and stopped."""
    with experiment_store() as (_, _, store):
        found = store.list()
    rows = [one.model_dump(mode="json") for one in found]
    if as_json:
        print_json(rows)
        return rows
    now_ms = time.time_ns() // 1_000_000
    columns = ["name", "state", "layer", "origin", "traffic", "allocation", "variants"]
    table = [
        [
            one.name, one.state, one.layer, one.origin, f"{one.traffic_at(now_ms):.0%}", one.allocation.kind,
            ", ".join(one.variant_names),
        ]
        for one in found
    ]  # fmt: skip
    print_table("Experiments", columns, table)
    return rows


@experiment.command("holdout")
def holdout(
    share: Annotated[float | None, typer.Option(help="Of all users, 0 to 0.5; empty: only show it.")] = None,
    salt: Annotated[str, typer.Option(help="Another salt takes other users.")] = "holdout",
    reason: Reason = "",
    reassign: Reassign = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Show or set the share of users who are in no experiment."""
    from tastemaker.experiments.holdout import Holdout, HoldoutStore

    with experiment_store() as (client, keys, _):
        store = HoldoutStore(client, keys)
        kept = store.get()
        if share is not None:
            wanted = Holdout.parse({"share": share, "salt": salt}, "--share")
            kept = store.put(wanted, actor=getpass.getuser(), reason=reason, reassign=reassign)
    tree = kept.model_dump(mode="json")
    if as_json:
        print_json(tree)
    else:
        console.print(f"{kept.share:.2%} of the users are in no experiment (salt {kept.salt})", markup=False)
    return tree


def _read(file: Path, state: str) -> "Experiment":
    from tastemaker.config_sources import read_yaml
    from tastemaker.experiments.definition import Experiment

    return Experiment.parse(read_yaml(file) | {"state": state}, str(file))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            "--weights", value=text, limit="numbers with commas between", mend="correct it"
        ) from None


def _told(kept: "Experiment", as_json: bool) -> dict[str, Any]:
    tree = kept.model_dump(mode="json")
    if as_json:
        print_json(tree)
    else:
        console.print(_sentence(kept), markup=False)
    return tree


def _sentence(one: "Experiment") -> str:
    state = {"draft": "is a draft", "running": "runs", "stopped": "is stopped"}[one.state]
    arms = ", ".join(f"{variant.name} = {variant.alias}" for variant in one.variants)
    share = one.traffic_at(time.time_ns() // 1_000_000)
    return f"experiment {one.name} {state}: {arms}; {share:.2%} of layer {one.layer}, version {one.version}"


def _changed(change: "Change") -> str:
    if change.action in ("create", "delete"):
        return ""
    before, after = change.changes.get("course", ({}, {}))
    anew = ["units assigned anew"] if before.get("generation") != after.get("generation") else []
    return ", ".join(sorted(change.changes.keys() - {"course"}) + anew)
