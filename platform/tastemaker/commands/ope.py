"""`tastemaker ope`: what another policy or bundle would have earned, judged from the decision log."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.errors import ExperimentError, UsageError
from tastemaker.terminal import console, errors, print_json, print_table

if TYPE_CHECKING:
    from tastemaker.experiments.definition import Experiment
    from tastemaker.offpolicy.dealt import DealtLists
    from tastemaker.offpolicy.judgement import Judgement
    from tastemaker.offpolicy.judging import Span
    from tastemaker.offpolicy.policies import JudgedPolicy
    from tastemaker.offpolicy.slates import Belief
    from tastemaker.types import Origin

app = typer.Typer()
_MINUTE_MS, _DAY_MS = 60_000, 86_400_000


class _Bounds(NamedTuple):
    """What is judged by, how sure intervals are, and how little an estimate may rest on."""

    metric: str
    level: float
    least_effective: float


@app.command()
def ope(
    told: typer.Context,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="Judge other weights of this experiment's variants or another allocation, from its log."
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="YAML: weights of variants, an allocation, or stages. Without it each variant is judged alone."
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Judge the lists of this version of the catalogue's bundle.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="EXPERIMENT/VARIANT",
            help="Judge lists from those of this variant alone; the experiment's allocation is fixed.",
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="What is earned.")] = "clicks_per_request",
    days: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=3650,
            help="Of the log, up to the newest closed answer; of an experiment all unless it is told.",
        ),
    ] = 1.0,
    window_minutes: Annotated[
        float,
        typer.Option(min=0, help="How long after an answer an event counts; an experiment has its own."),
    ] = 30.0,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Judge so many first slots of the lists; without it, all.")
    ] = None,
    belief: Annotated[
        Literal["whole-list", "reward-interaction", "item-position"],
        typer.Option(
            help="What a slot's clicks depend on: the whole list, what is above too, or its item alone."
        ),
    ] = "reward-interaction",
    origin: Annotated[Literal["live", "simulator"], typer.Option(help="Of the answers.")] = "live",
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    least_effective: Annotated[
        float, typer.Option(min=2, help="Refuse an estimate that rests on fewer answers of equal weight.")
    ] = 100.0,
    html: Annotated[Path | None, typer.Option(help="Write the page with plots here.")] = None,
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Judge a policy or a bundle from the decision log; refuses what the log cannot support."""
    chosen = _policy(policy)
    of_lists = version is not None or depth is not None or variant is not None
    _refuse_mixed(experiment, chosen, version, of_lists=of_lists)
    bounds, refused = _Bounds(metric, level, least_effective), dict[str, str]()
    if experiment is not None:
        _refuse_of_lists(told)
        found, refused = _of_experiment(
            experiment, chosen, str(policy), bounds, days if _is_told(told, "days") else None
        )
    else:
        span = _span(days, window_minutes, origin)
        found = [_of_lists(version, chosen, span, bounds, depth=depth, belief=belief, variant=variant)]
    if html is not None:
        from tastemaker.offpolicy.page import render

        html.write_text(render(found, refused), encoding="utf-8")
    rows = [one.as_json() for one in found]
    rows += [{"policy": name, "refused": reason} for name, reason in refused.items()]
    for name, reason in refused.items():
        errors.print(f"{name} is not judged: {reason}", markup=False)
    if as_json:
        print_json(rows)
        return rows
    for one in found:
        _print(one)
    if html is not None:
        console.print(f"page written to {html}", markup=False)
    return rows


def _refuse_mixed(
    experiment: str | None, chosen: "JudgedPolicy | None", version: int | None, *, of_lists: bool
) -> None:
    """Refuses options that do not go together: lists and experiments are judged in different ways."""
    if experiment is not None and (of_lists or (chosen is not None and chosen.stages is not None)):
        raise UsageError(
            "--experiment judges weights and allocations",
            mend="leave out --version, --variant, --depth and stages",
        )
    if experiment is None and version is None and chosen is None:
        raise UsageError("nothing to judge", mend="give --version, --policy with stages, or --experiment")
    if experiment is None and chosen is not None and chosen.stages is None:
        raise UsageError(
            "weights and allocations are of an experiment's variants", mend="name it with --experiment"
        )


def _is_told(told: typer.Context, name: str) -> bool:
    """Whether an option was given, whatever its default is."""
    source = told.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def _refuse_of_lists(told: typer.Context) -> None:
    """Refuses what an experiment says itself, or what is of lists alone."""
    for name in ("belief", "window_minutes", "origin"):
        if _is_told(told, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is of lists; an experiment has its own window and origin, and is judged by whole answers",
                mend=f"leave out {option}, or --experiment",
            )


def _policy(file: Path | None) -> "JudgedPolicy | None":
    from tastemaker.config_sources import read_yaml
    from tastemaker.offpolicy.policies import JudgedPolicy

    return None if file is None else JudgedPolicy.parse(read_yaml(file), str(file))


def _span(days: float, window_minutes: float, origin: "Origin") -> "Span":
    from tastemaker.offpolicy.judging import Span

    return Span.days(days, time.time_ns() // 1_000_000, round(window_minutes * _MINUTE_MS), origin)


def _of_experiment(
    name: str, chosen: "JudgedPolicy | None", label: str, bounds: _Bounds, days: float | None
) -> "tuple[list[Judgement], dict[str, str]]":
    """Judges from all of an experiment's answers, or from those of the last days; of policies that the log cannot judge, why."""
    from tastemaker.experiments.metrics import metric_of
    from tastemaker.experiments.reporting.days import of_experiment
    from tastemaker.experiments.reporting.observations import read_observations
    from tastemaker.offpolicy.allocations import judge_allocation
    from tastemaker.offpolicy.arms import judge_weights
    from tastemaker.offpolicy.policies import JudgedPolicy

    settings, home, definition = context.settings(), context.home(), _definition(name)
    if definition.interleaves:
        raise ExperimentError(
            f"allocation of experiment {name}", value="interleaving", limit="a split or a bandit: each list holds both variants",
            mend="read its report instead",
        )  # fmt: skip
    if days is not None and chosen is not None and chosen.allocation is not None:
        raise UsageError(
            "an allocation learns from an experiment's first answer on",
            mend="leave out --days, or judge weights",
        )
    now_ms, wanted = time.time_ns() // 1_000_000, of_experiment(definition)
    if days is not None:
        since_ms = now_ms - definition.attribution_window_ms - round(days * _DAY_MS)
        wanted = replace(wanted, since_ms=max(wanted.since_ms, since_ms))
    seen = read_observations(home, settings.catalogue, definition, now_ms, wanted=wanted)
    metric = metric_of(bounds.metric)
    how: dict[str, Any] = {"level": bounds.level, "least_effective": bounds.least_effective}
    if chosen is not None and chosen.allocation is not None:
        catalogue, allocation = settings.catalogue, chosen.allocation
        learned = judge_allocation(home, catalogue, seen, definition, metric, allocation, name=label, **how)
        return [learned], {}
    if chosen is not None:
        return [judge_weights(seen, definition, metric, chosen, name=label, **how)], {}
    found, refused = [], dict[str, ExperimentError]()
    for variant in definition.variant_names:
        alone, told = JudgedPolicy(weights={variant: 1.0}), f"all to {variant}"
        try:
            found.append(judge_weights(seen, definition, metric, alone, name=told, **how))
        except ExperimentError as error:
            refused[told] = error
    if not found:
        raise next(iter(refused.values()))
    return found, {told: str(reason) for told, reason in refused.items()}


def _definition(name: str) -> "Experiment":
    from tastemaker.experiments.store import ExperimentStore
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        return ExperimentStore(client, open_keys(client, settings)).get(name)


def _dealt(told: str, origin: "Origin") -> "DealtLists":
    """The lists of what `--variant` names."""
    from tastemaker.offpolicy.dealt import DealtLists

    experiment, _, variant = told.partition("/")
    if not experiment or not variant:
        raise UsageError("--variant", value=told, limit="EXPERIMENT/VARIANT")
    return DealtLists.of(_definition(experiment), variant, origin)


def _of_lists(
    version: int | None,
    chosen: "JudgedPolicy | None",
    span: "Span",
    bounds: _Bounds,
    *,
    depth: int | None,
    belief: "Belief",
    variant: str | None,
) -> "Judgement":
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.store import BundleStore
    from tastemaker.offpolicy.judging import judge_bundle
    from tastemaker.registry.client import Registry

    settings, home = context.settings(), context.home()
    bundle, dealt = None, None if variant is None else _dealt(variant, span.origin)
    if version is not None:
        found = Registry(settings, home).version(settings.catalogue, version)
        bundle = Bundle.open(BundleStore.of(settings, home), found.uri, found.sha256)
    return judge_bundle(
        settings, home, span, bundle=bundle, stages=chosen.stages if chosen else None, depths=(depth,), belief=belief, dealt=dealt,
        name=f"version {version}" if version is not None else "stages", **bounds._asdict(),
    )  # fmt: skip


def _print(one: "Judgement") -> None:
    def shown(found: Any) -> str:
        return f"{found.value:.5g} [{found.low:.5g}, {found.high:.5g}]"

    rows = [["logged", shown(one.logged), ""]]
    rows += [[e.estimator, shown(e.value), shown(e.difference)] for e in one.estimates]
    print_table(f"{one.policy}: {one.measured}", ["estimator", one.unit, "more than logged"], rows)
    support = one.support
    console.print(
        f"{one.rows:,} of {one.read:,} answers used, {support.num_used:,} agree with the policy; effective {support.effective_rows:,.0f}; "
        f"largest weight {support.largest_weight:.3g}; mean weight {support.mean_weight:.3f} "
        f"[{support.mean_low:.3f}, {support.mean_high:.3f}]",
        markup=False,
    )
    for note in [*one.notes, one.advice()]:
        console.print(note, markup=False)
    for reason, count in one.left_out.items():
        if count:
            console.print(f"left out: {count:,} answers {reason}", markup=False)
