"""`tastemaker experiment …` and `tastemaker simulate`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.errors import ExperimentError
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    import redis

    from tastemaker.data.simulator import ExactLift, Trace
    from tastemaker.data.world_process import WorldProcess
    from tastemaker.experiments.definition import Experiment, ExperimentStore
    from tastemaker.features.item_store import ItemFacts
    from tastemaker.state.keys import Keys

app = typer.Typer()
experiment = typer.Typer(help="A/B experiments.")
app.add_typer(experiment, name="experiment")
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
SETTLE_SECONDS = 60.0


@contextmanager
def _store() -> Iterator[tuple["redis.Redis", "Keys", "ExperimentStore"]]:
    from tastemaker.experiments.definition import ExperimentStore
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        keys = open_keys(client, settings)
        yield client, keys, ExperimentStore(client, keys)


@experiment.command("start")
def start(file: Annotated[Path, typer.Argument(help="YAML of one experiment.")]) -> str:
    """Start the experiment that FILE defines."""
    from tastemaker.config_sources import read_yaml
    from tastemaker.experiments.definition import Experiment
    from tastemaker.experiments.router import SNAPSHOT_SECONDS

    definition = Experiment.parse(read_yaml(file), str(file))
    if definition.layer != "default":
        raise ExperimentError(
            f"layer of {definition.name}",
            value=definition.layer,
            limit="'default'",
            mend="routers serve no other yet",
        )
    with _store() as (_, _, store):
        store.create(definition)
    time.sleep(SNAPSHOT_SECONDS)  # every router has read it by then
    arms = ", ".join(f"{variant.name} = {variant.alias}" for variant in definition.variants)
    console.print(f"experiment {definition.name} runs: {arms}", markup=False)
    return definition.name


@experiment.command("stop")
def stop(name: str) -> int:
    """Stop an experiment; its data stays."""
    with _store() as (_, _, store):
        store.stop(name)
    console.print(f"experiment {name} is stopped", markup=False)
    return 0


@experiment.command("list")
def list_(as_json: Json = False) -> list[dict[str, Any]]:
    """All experiments, running or stopped."""
    with _store() as (_, _, store):
        rows = [one.model_dump(mode="json") for one in store.list()]
    if as_json:
        print_json(rows)
    else:
        print_table(
            "Experiments",
            ["name", "state", "origin", "allocation", "variants"],
            [
                [
                    r["name"],
                    r["state"],
                    r["origin"],
                    r["allocation"]["kind"],
                    ", ".join(v["name"] for v in r["variants"]),
                ]
                for r in rows
            ],
        )
    return rows


@experiment.command("report")
def report(
    name: str,
    metric: Annotated[
        str, typer.Option(help="clicks_per_request, clicks_per_impression …")
    ] = "clicks_per_request",
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    as_json: Json = False,
) -> dict[str, Any]:
    """Lift with its interval, clustered by unit, and the check of the split."""
    from tastemaker.events.drained import await_drained
    from tastemaker.experiments.report import build_report

    settings, home = context.settings(), context.home()
    with _store() as (client, keys, store):
        definition = store.get(name)
        await_drained(client, keys, SETTLE_SECONDS)
        found = build_report(home, settings.catalogue, definition, metric, level=level)
    tree = found.model_dump(mode="json")
    if as_json:
        print_json(tree)
        return tree
    columns = ["variant", "alias", "units", "requests", "clicks", metric, f"{level:.0%} interval"]
    rows = [
        [v.name, v.alias, v.units, v.requests, v.clicks, _number(v.value), _interval(v.low, v.high)]
        for v in found.variants
    ]
    print_table(f"{name}: {found.hypothesis}", columns, rows)
    for lift in found.lifts:
        text = (
            lift.reason
            or f"{_percent(lift.value)} [{_percent(lift.low)}, {_percent(lift.high)}], p {lift.p_value:.4f}"
        )
        console.print(f"lift of {lift.variant}: {text}", markup=False)
    alarm = "; the split is not what was asked for" if found.srm_alarm else ""
    console.print(f"SRM p-value: {found.srm_p_value:.4f}{alarm}", markup=False)
    return tree


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(help="A running experiment of origin simulator.")],
    visitors: Annotated[int, typer.Option(min=2, help="How many come.")] = 800,
    seed: Annotated[int, typer.Option(help="Of the visitors.")] = 0,
    world_seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Asked for; the gateway's own where unset.")
    ] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Let simulated visitors use the running gateway, and say what each variant is truly worth to them."""
    from tastemaker.data.simulator import Simulator

    world = _world(world_seed)
    with _store() as (client, keys, store):
        definition = store.get(name)
        people = world.visitors(visitors, seed, prefix=f"{name}-{seed}")
        trace = Simulator(context.gateway_url(), world, deadline_ms).run(people)
        truth = _truth(definition, trace, world, client, keys)
    summary = trace.summary() | {"exact_rates": truth.rates, "exact_lift": truth.lift}
    summary |= {"parity": truth.parity, "parity_checked": truth.num_checked}
    if as_json:
        print_json(summary)
    else:
        _print_traffic(summary)
    return summary


@cache
def _world(seed: int) -> "WorldProcess":
    """The world, fitted once for all simulations of this process."""
    from tastemaker.data.world_process import WorldProcess

    return context.lifetime.enter_context(WorldProcess(context.home(), context.settings().catalogue, seed))


def _truth(
    definition: "Experiment", trace: "Trace", world: "WorldProcess", client: "redis.Redis", keys: "Keys"
) -> "ExactLift":
    from tastemaker.data.simulator import SLATE_SIZE, exact_lift
    from tastemaker.evaluation.replay import Replay
    from tastemaker.features.item_store import ItemStore

    def store_of(facts: "ItemFacts") -> "ItemStore":
        store = ItemStore(facts)
        store.refresh(client, keys)
        return store

    now_ms = time.time_ns() // 1_000_000
    replays = {
        alias: Replay(bundle, context.settings().state.history_length, now_ms, store_of)
        for alias, bundle in _bundles(definition, client, keys).items()
    }
    alias_of = {variant.name: variant.alias for variant in definition.variants}

    def slates(variant: str, sessions: "Sequence[Sequence[str]]") -> list[list[str]]:
        alias = alias_of[variant]
        return replays[alias].slates(sessions, SLATE_SIZE, f"replaying {alias}")

    return exact_lift(trace, slates, world, alias_of)


def _bundles(definition: "Experiment", client: "redis.Redis", keys: "Keys") -> dict[str, Any]:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.store import BundleStore
    from tastemaker.registry.live import read_live

    settings, home = context.settings(), context.home()
    found = read_live(client, keys)
    live = found.aliases if found else {}
    store = BundleStore.of(settings, home)
    names = {variant.alias for variant in definition.variants}
    if missing := names - live.keys():
        raise ExperimentError(f"alias {sorted(missing)[0]} is not live", mend="promote a version to it")
    return {name: Bundle.open(store, live[name].ref, live[name].sha256) for name in sorted(names)}


def _print_traffic(summary: dict[str, Any]) -> None:
    rate = summary["clicks"] / max(summary["shown"], 1)
    console.print(
        f"{summary['requests']:,} requests of {summary['visitors']:,} visitors in {summary['seconds']:.1f} s "
        f"({summary['requests'] / summary['seconds']:.0f}/s), {summary['failed']} failed, {summary['degraded']} degraded; "
        f"{rate:.1%} of shown items clicked",
        markup=False,
    )
    console.print(
        f"exact lift under the world: {summary['exact_lift']:+.2%}; "
        f"{summary['parity']:.1%} of {summary['parity_checked']} served lists equal their offline replay",
        markup=False,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
