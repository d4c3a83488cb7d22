"""`tastemaker simulate`: visitors of known taste use the running gateway."""

import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.experiments import experiment_store
from tastemaker.commands.options import Json
from tastemaker.errors import ExperimentError
from tastemaker.terminal import console, print_json

if TYPE_CHECKING:
    import redis

    from tastemaker.data.exact_lift import ExactLift
    from tastemaker.data.simulator import Trace
    from tastemaker.data.world_process import WorldProcess
    from tastemaker.experiments.definition import Experiment
    from tastemaker.features.item_store import ItemFacts
    from tastemaker.state.keys import Keys

app = typer.Typer()


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
    with experiment_store() as (client, keys, store):
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
    from tastemaker.data.exact_lift import exact_lift
    from tastemaker.data.simulator import SLATE_SIZE
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
    live = dict(found.aliases) if found else {}
    live |= {f"version:{version.version}": version for version in live.values()}
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
