"""`tastemaker experiment plan`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.errors import UsageError
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from tastemaker.experiments.statistics.planning import Plan

app = typer.Typer()


@app.command("plan")
def plan_(
    effect: Annotated[
        float, typer.Option(help="Smallest relative effect worth finding: 0.05 is 5% more, -0.05 5% less.")
    ],
    rate: Annotated[
        float | None, typer.Option(help="What is measured is a share, such as of units that buy: its size.")
    ] = None,
    per_unit: Annotated[float, typer.Option(help="Answers a unit gives to it, such as impressions.")] = 1.0,
    correlation: Annotated[
        float, typer.Option(help="Of the answers of one unit, 0 to 1; 0 takes them for independent.")
    ] = 0.0,
    mean: Annotated[
        float | None, typer.Option(help="What is measured is a number by unit: its mean.")
    ] = None,
    deviation: Annotated[float | None, typer.Option(help="And its standard deviation between units.")] = None,
    like: Annotated[
        str | None, typer.Option(help="Take it from what the control of this experiment did.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="With --like: the metric; its own primary one where unset.")
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Of units by variant, the control first; by comma.")
    ] = "0.5,0.5",
    units_per_day: Annotated[
        float | None, typer.Option(help="New units a day that take part; says how many days.")
    ] = None,
    power: Annotated[float, typer.Option(help="Chance to find an effect as large as that.")] = 0.8,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    variance_reduction: Annotated[
        float, typer.Option(help="What CUPED takes out; reports say how much it was.")
    ] = 0.0,
    as_json: Json = False,
) -> dict[str, Any]:
    """How many units, and days, an experiment needs: to be watched and stopped at any time, and with one look at its end."""
    from tastemaker.experiments.statistics.planning import plan

    variation = _variation(rate, per_unit, correlation, mean, deviation, like, metric)
    plans = {
        kind: plan(
            effect, variation, shares=_numbers(shares), level=level, power=power, sequential=kind == "sequential",
            variance_reduction=variance_reduction, units_per_day=units_per_day,
        )
        for kind in ("sequential", "fixed")
    }  # fmt: skip
    tree = {"effect": effect, "variation": variation} | {kind: asdict(found) for kind, found in plans.items()}
    if as_json:
        print_json(tree)
    else:
        _print(effect, power, plans)
    return tree


def _print(effect: float, power: float, plans: "dict[str, Plan]") -> None:
    looks = {"sequential": "at any time", "fixed": "once, at the end"}
    rows = [
        [
            looks[kind], f"{found.units:,}", " + ".join(f"{n:,}" for n in found.units_by_variant),
            f"{found.expected_units:,}", "" if found.days is None else f"{found.days:,}",
        ]
        for kind, found in plans.items()
    ]  # fmt: skip
    title = f"An effect of {effect:+.1%}, found with a chance of {power:.0%}"
    print_table(title, ["looked at", "units", "by variant", "on average", "days"], rows)
    console.print("one that is watched may be stopped as soon as its always-valid interval excludes 0")


def _variation(
    rate: float | None,
    per_unit: float,
    correlation: float,
    mean: float | None,
    deviation: float | None,
    like: str | None,
    metric: str | None,
) -> float:
    from tastemaker.experiments.statistics.planning import variation_of_rate

    given = [rate is not None, mean is not None or deviation is not None, like is not None]
    if sum(given) != 1:
        raise UsageError("what is measured", limit="--rate, --mean with --deviation, or --like, one of them")
    if metric is not None and like is None:
        raise UsageError("--metric says what to read", mend="name the experiment with --like")
    if like is not None:
        return _seen(like, metric)
    if rate is not None:
        return variation_of_rate(rate, per_unit, correlation)
    if mean is None or deviation is None or not mean > 0:
        raise UsageError("--mean", value=mean, limit="above 0, with --deviation")
    return deviation / mean


def _seen(name: str, metric: str | None) -> float:
    import time

    from tastemaker.experiments.metrics import unit_metric_of
    from tastemaker.experiments.reporting.observations import read_observations
    from tastemaker.experiments.reporting.weighing import Weighing
    from tastemaker.experiments.statistics.planning import variation_of
    from tastemaker.experiments.store import ExperimentStore
    from tastemaker.state.connection import open_keys, open_state

    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        definition = ExperimentStore(client, open_keys(client, settings)).get(name)
    wanted = unit_metric_of(metric or definition.metric)
    seen = read_observations(home, settings.catalogue, definition, time.time_ns() // 1_000_000)
    weighing = Weighing(definition, level=0.95, num_items=0)
    return variation_of(weighing.influence(seen, weighing.measured(seen, wanted)))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError("--shares", value=text, limit="numbers by comma, such as 0.5,0.5") from error
