"""What a person sees of a study: a table of its trials, and a self-contained page of plots."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.terminal import console, print_table
from tastemaker_training.plan.search_space import Range
from tastemaker_training.studies.study import Study, Trial, scores

_COLOURS = {"completed": "#1a7f37", "stopped": "#9a6700", "failed": "#c93c37", "running": "#888888"}
_STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }"
)
_MS_PER_MINUTE = 60_000


def print_found(study: Study, found: Mapping[str, Any]) -> None:
    """The trials as a table, the best of them, and where to look further, on stdout."""
    trials, names = study.trials(), short_names(list(study.spaces))
    rows = [[trial.number, *_cells(study, trial), *_results(study, trial)] for trial in trials]
    columns = ["trial", *names.values(), study.metric, "against defaults", "epochs", "outcome"]
    print_table(f"Trials of study {study.name}", columns, rows)
    for trial in trials:
        if trial.reason:
            console.print(f"trial {trial.number} failed: {trial.reason}", markup=False)
    best, published = found["best"], found["published"]
    whose = "the defaults" if best == 0 else f"trial {best}"
    console.print(f"best: {whose}; its recipe is {found['recipe']}", markup=False)
    console.print(f"plots: {found['report']}", markup=False)
    if published is not None:
        version, bundle = published["version"], published["bundle"]
        console.print(f"version {version} is its bundle {bundle}, which no alias names yet", markup=False)


def _cells(study: Study, trial: Trial) -> list[str]:
    return [_text(trial.values[path]) for path in study.spaces]


def _results(study: Study, trial: Trial) -> list[object]:
    """A trial is compared with as many epochs of the defaults' as it had itself."""
    reference = study.reference()
    score = "" if trial.score is None else f"{trial.score:.4f}"
    same = scores(study, reference.curve[: len(trial.curve)]) if reference else []
    return [score, against(trial.score, same[-1] if same else None), len(trial.curve), trial.outcome]


def against(score: float | None, defaults: float | None) -> str:
    """How much more than the defaults' score a score is, in percent; empty where either is missing.

    >>> against(0.11, 0.1), against(0.09, 0.1), against(None, 0.1)
    ('+10.0%', '-10.0%', '')
    """
    if score is None or not defaults:
        return ""
    return f"{score / defaults - 1:+.1%}"


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each dotted path's shortest end that no other path has.

    >>> short_names(["fit.dense.rate", "fit.table.rate", "model.dim"])
    {'fit.dense.rate': 'dense.rate', 'fit.table.rate': 'table.rate', 'model.dim': 'dim'}
    """
    found = {}
    for path in paths:
        parts = path.split(".")
        ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
        others = [f".{other}" for other in paths if other != path]
        found[path] = next(end for end in ends if not any(other.endswith(f".{end}") for other in others))
    return found


def render(study: Study) -> str:
    """The page: trials over time, and parallel coordinates of those that have a score."""
    from plotly.offline import get_plotlyjs

    trials = study.trials()
    parts = [_over_time(study, trials)]
    if scored := [trial for trial in trials if trial.score is not None]:
        parts.append(_parallel(study, scored))
    title = html.escape(f"Study {study.name}: {study.part} by {study.metric}")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1>{''.join(parts)}</body></html>"
    )


def _over_time(study: Study, trials: Sequence[Trial]) -> str:
    from plotly import graph_objects as go

    figure = go.Figure()
    began = min((trial.started_ms for trial in trials), default=0)
    ended = sorted(
        (t for t in trials if t.score is not None and t.ended_ms), key=lambda trial: trial.ended_ms or 0
    )
    for outcome, colour in _COLOURS.items():
        shown = [trial for trial in ended if trial.outcome == outcome]
        figure.add_scatter(
            x=[_minutes(trial, began) for trial in shown], y=[trial.score for trial in shown], mode="markers",
            name=outcome, marker={"color": colour, "size": 9}, text=[_values(study, trial) for trial in shown],
        )  # fmt: skip
    best: list[float] = []
    for score in (trial.score or 0.0 for trial in ended):
        best.append(score if not best or study.better(score, best[-1]) else best[-1])
    figure.add_scatter(
        x=[_minutes(trial, began) for trial in ended],
        y=best,
        name="best so far",
        line={"shape": "hv", "dash": "dot"},
    )
    figure.update_layout(
        title="Trials over time", xaxis_title="minutes since the first trial began", yaxis_title=study.metric
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=False))


def _parallel(study: Study, trials: Sequence[Trial]) -> str:
    from plotly import graph_objects as go

    score = {"label": study.metric, "values": [trial.score for trial in trials]}
    axes = [
        _axis(study, path, name, [trial.values[path] for trial in trials])
        for path, name in short_names(list(study.spaces)).items()
    ]
    colours = {"color": score["values"], "colorscale": "Viridis", "showscale": True}
    figure = go.Figure(go.Parcoords(line=colours, dimensions=[*axes, score]))
    figure.update_layout(title="What they tried")
    return str(figure.to_html(full_html=False, include_plotlyjs=False))


def _axis(study: Study, path: str, name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A searched value's axis: choices by position, a logarithmic range by its logarithm."""
    space = study.spaces[path]
    search = space.search
    if not isinstance(search, Range):
        ticks = {"tickvals": list(range(len(search))), "ticktext": [_text(choice) for choice in search]}
        return {"label": name, "values": [space.encode(value) for value in values], **ticks}
    if not search.log:
        return {"label": name, "values": list(values), "range": [search.low, search.high]}
    low, high = math.log10(search.low), math.log10(search.high)
    at = [low + (high - low) * step / 4 for step in range(5)]
    ticks = {"tickvals": at, "ticktext": [f"{10**tick:.2g}" for tick in at]}
    return {"label": name, "values": [math.log10(value) for value in values], "range": [low, high], **ticks}


def _minutes(trial: Trial, began_ms: int) -> float:
    return ((trial.ended_ms or began_ms) - began_ms) / _MS_PER_MINUTE


def _values(study: Study, trial: Trial) -> str:
    names: Mapping[str, str] = short_names(list(study.spaces))
    lines = [f"{name} = {_text(trial.values[path])}" for path, name in names.items()]
    return "<br>".join(html.escape(line) for line in [f"trial {trial.number}", *lines])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
