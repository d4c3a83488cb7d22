"""Answering requests at a million items, with 2 cores for everything: `make bench-serving`.

    latency    p50, p95 and p99 at 10, 25 and 50 requests a second, open loop, spread, fused, and two fused gateways
    stages     the same of each stage, by the answers' own timings
    overhead   the graphs beside one bare process that calls the same stages: one request in flight, and many
    where      what each of them spends the time of a lone request on
    memory     of each process
    swaps      promotions and rollbacks under load, see `serving_swap`

A catalogue of 1M items x 64 is made and published; 500 candidates, 50 features, every source, full rerank, records of users in
an embedded Valkey, no cached lists. Contenders take turns, each started anew by its own command; the load comes from a
process of its own. Each part is kept in benchmarks/out/serving-PART.json, and docs/results/DATE-serving.md is made of all that are kept.
All but `swaps` read the same turns: with one of them all are measured. `--only swaps` measures that part alone, `--quick` takes a small
catalogue, short runs and one turn; FULL=1 takes six turns in place of two, of swaps no more.
"""

import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kept
import numpy as np
from report import OUT
from serving_processes import Kind
from serving_turns import (
    KINDS,
    LEVELS,
    MANY,
    PATIENT_MS,
    RATES,
    Turns,
    degraded,
    measured,
    num_failed,
    num_items,
    num_turns,
    per_core_second,
    per_second,
    percentiles,
    summary,
)  # fmt: skip
from turns import Effort, Part, shown

from tastemaker.types import Float64

GRAPHS: Final[tuple[Kind, ...]] = ("fused", "fused x 2", "spread")
STAGES: Final = ("history", "wait", "retrieve", "rank", "rerank")
BUDGET_MS: Final = {"history": 5.0, "retrieve": 10.0, "rank": 50.0, "rerank": 5.0}
QUEUED: Final = {"wait and retrieve": ("wait", "retrieve")}
"""What a fused graph tells apart and a spread one does not: judged together, request by request."""
OWN: Final = {f"{stage}, its own": f"{stage}_work" for stage in ("retrieve", "rank", "rerank")}
"""What a stage's process took of what the gateway waited for it, as a spread graph tells it."""


def latency(effort: Effort) -> Part:
    """How long answers take from the moment at which they were due."""
    found = measured(effort)
    names = ("graph", "requests/s", *(f"p{level}, ms" for level in LEVELS), "late or degraded, %")
    part = Part(f"Open-loop arrivals, {num_items(effort):,} items", names, num_turns=num_turns(found))
    for kind in GRAPHS:
        for rate in RATES:
            runs = [turn[f"{rate}/s"] for turn in found[kind]]
            times = [shown(percentiles(runs, level)) for level in LEVELS]
            part.rows.append((kind, str(rate), *times, shown([100 * degraded(run) for run in runs], 2)))
        for rate, limit in ((25, 50.0), (50, 100.0)):
            p99 = statistics.median(percentiles([turn[f"{rate}/s"] for turn in found[kind]], 99))
            part.target(f"{kind}: p99 at {rate}/s, ms", p99, limit, "lower")
        failed = sum(num_failed(turn[f"{rate}/s"]) for turn in found[kind] for rate in RATES)
        part.target(f"{kind}: answers other than 200", failed, 0, "lower")
    plot = _plot_file(effort)
    late = [run["late_ms"] for kind in GRAPHS for turn in found[kind] for run in [turn["25/s"]]]
    part.notes = [
        "Latencies count from the moment at which a request was due, so that a queue shows. The load itself was behind by "
        f"{np.percentile(np.concatenate(late), 99):.1f} ms at p99 of 25/s, which is in them.",
        f"![Latency by arrivals]({plot.name})",
    ]
    _plot(found, plot)
    part.figures = {kind: [summary(turn) for turn in turns] for kind, turns in found.items()}
    return part


def stages(effort: Effort) -> Part:
    """What the gateway waited for each stage."""
    found = measured(effort)
    part = Part(
        "Stages, as the gateway times them",
        ("graph", "requests/s", "stage", *(f"p{level}, ms" for level in LEVELS)),
        num_turns=num_turns(found),
    )
    for kind in GRAPHS:
        for rate in RATES:
            taken = [stage_ms(turn[f"{rate}/s"]) for turn in found[kind]]
            for stage in (*STAGES, *OWN, *QUEUED):
                if any(stage not in one for one in taken):
                    continue
                times = [[float(np.nanpercentile(one[stage], level)) for one in taken] for level in LEVELS]
                part.rows.append((kind, str(rate), stage, *(shown(values, 2) for values in times)))
                limit = budget_ms(stage, taken)
                if rate == 25 and limit is not None:
                    part.target(
                        f"{kind}: {stage} p99 at 25/s, ms", statistics.median(times[2]), limit, "lower"
                    )
    part.notes = [
        "In a spread graph a stage's time has the hop in it, and the wait for its process; `its own` is what the process took of it, from the "
        "message's coming to the answer's going, the other calls of the message included, and has the same budget. In a fused graph `wait` is the time until a "
        "thread of the gateway took the request, and the budget of retrieval is of both together. Rank is hydration and ranking."
    ]
    return part


def stage_ms(run: dict[str, Any]) -> dict[str, Float64]:
    """Of each stage that answers told the time of, its milliseconds by answer; also of what is judged together."""
    own = {stage: run["stages"].get(name, np.nan) for stage, name in OWN.items()}
    told = {
        stage: np.array(times, np.float64)
        for stage, times in ({stage: run["stages"][stage] for stage in STAGES} | own).items()
    }
    told = {stage: times for stage, times in told.items() if not np.isnan(times).all()}
    for name, stages in QUEUED.items():
        if told.keys() >= set(stages):
            told[name] = np.sum([told[stage] for stage in stages], axis=0)
    return told


def budget_ms(stage: str, taken: list[dict[str, Float64]]) -> float | None:
    """What a stage's p99 may be; of one that is judged with what came before it, none of its own."""
    for name, stages in QUEUED.items():
        if all(name in one for one in taken) and stage in (name, *stages):
            return BUDGET_MS[stages[-1]] if stage == name else None
    return BUDGET_MS.get(stage.removesuffix(", its own"))


def overhead(effort: Effort) -> Part:
    """Both graphs beside the bare process, by ratios of one turn."""
    found = measured(effort)
    names = (
        "",
        "one in flight: p50, ms",
        "p99, ms",
        f"{MANY} in flight: requests/s",
        "p99, ms",
        "requests per core-second",
        "of bare",
    )
    part = Part("The graph beside one process that calls the same stages", names, num_turns=num_turns(found))
    rates = {kind: [per_second(turn["many"]) for turn in found[kind]] for kind in KINDS}
    for kind in KINDS:
        alone, many = ([turn[name] for turn in found[kind]] for name in ("alone", "many"))
        share = [mine / bare for mine, bare in zip(rates[kind], rates["bare"], strict=True)]
        part.rows.append((
            kind, shown(percentiles(alone, 50), 2), shown(percentiles(alone, 99), 1), shown(rates[kind], 0),
            shown(percentiles(many, 99), 0), shown([per_core_second(run) for run in many], 0), shown(share, 2),
        ))  # fmt: skip
    p50 = {kind: percentiles([turn["alone"] for turn in found[kind]], 50) for kind in KINDS}
    hops = max(_num_hops(turn["alone"]) for turn in found["spread"])
    hop = [(mine - bare) / hops for mine, bare in zip(p50["spread"], p50["bare"], strict=True)]
    more = [mine - bare for mine, bare in zip(p50["fused"], p50["bare"], strict=True)]
    share = [mine / bare for mine, bare in zip(rates["fused"], rates["bare"], strict=True)]
    part.target("spread: p50 over bare by hop, one in flight, ms", statistics.median(hop), 4.0, "lower")
    part.target("spread: hops of an answer", hops, 3, "lower")
    part.target("fused: p50 over bare, one in flight, ms", statistics.median(more), 1.0, "lower")
    part.target(
        f"fused: share of the bare process's throughput, {MANY} in flight",
        statistics.median(share),
        0.6,
        "higher",
    )
    part.notes = [
        "The bare process reads the user, runs `stages.pipeline` in its event loop, which explores, samples and gives reasons as a "
        "gateway's stages do, and answers with ids: no proxy, deadlines, "
        f"rungs, experiments, decision log, metrics or consumer. With {MANY} in flight the deadline is {PATIENT_MS / 1000:.0f} s. "
        "Core-seconds are those of gateway, stages, proxy and Valkey together.",
        "Started in, s: "
        + ", ".join(f"{kind} {shown([turn['started'] for turn in found[kind]], 0)}" for kind in KINDS)
        + ".",
    ]
    return part


def _num_hops(run: dict[str, Any]) -> int:
    """Stages, of those that are other processes, which the answers' timings name."""
    return sum(not np.isnan(run["stages"][stage]).all() for stage in STAGES[1:])


def where(effort: Effort) -> Part:
    """A lone request's time by what it goes to."""
    found = measured(effort)
    part = Part(
        "Where a lone request's time goes: p50, ms",
        ("", *STAGES, "between stages", "outside: HTTP, proxy"),
        num_turns=num_turns(found),
    )
    for kind in KINDS:
        rows = []
        for turn in found[kind]:
            run = turn["alone"]
            spans = [np.nan_to_num(run["stages"][stage]) for stage in STAGES]
            total, whole = np.array(run["stages"]["total"]), np.array(run["latency_ms"])
            num = min(len(total), len(whole))
            rows.append(
                [
                    *(np.median(span) for span in spans),
                    np.median(total - np.sum(spans, axis=0)),
                    np.median(whole[:num] - total[:num]),
                ]
            )
        part.rows.append((kind, *(shown(column, 2) for column in zip(*rows, strict=True))))
    return part


def memory(effort: Effort) -> Part:
    """Of each process, after some thousand requests."""
    found = measured(effort)
    million = num_items(effort) / 1e6
    part = Part(
        f"Memory with {num_items(effort):,} items",
        ("", "process", "RSS, MB", "PSS, MB", "PSS by million items, MB"),
        num_turns=num_turns(found),
    )
    for kind in KINDS:
        for role in found[kind][0]["memory"]:
            rss, pss = (
                [turn["memory"][role][size] for turn in found[kind] if role in turn["memory"]]
                for size in ("rss", "pss")
            )
            part.rows.append((kind, role, shown(rss, 0), shown(pss, 0), shown(pss, 0, 1 / million)))
    part.figures = {kind: [turn["memory"] for turn in turns] for kind, turns in found.items()}
    return part


def _plot_file(effort: Effort) -> Path:
    """Where the results are; the page takes it from there."""
    return OUT / ("serving-quick.svg" if effort.divide > 1 else f"{datetime.now(UTC).date()}-serving.svg")


def _plot(found: Turns, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.0))
    for kind, colour in zip(GRAPHS, ("tab:blue", "tab:green", "tab:orange"), strict=True):
        for level, style in zip(LEVELS, (":", "--", "-"), strict=True):
            ms = [
                statistics.median(percentiles([turn[f"{rate}/s"] for turn in found[kind]], level))
                for rate in RATES
            ]
            axes.plot(RATES, ms, style, color=colour, marker="o", label=f"{kind}, p{level}")
    axes.set_xlabel("requests a second, open loop")
    axes.set_ylabel("latency from due to answered, ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, bbox_inches="tight")
    plt.close(figure)


OF_THE_TURNS: Final = ("latency", "stages", "overhead", "where", "memory")
PARTS: Final = {**{part: f"serving:{part}" for part in OF_THE_TURNS}, "swaps": "serving_swap:swaps"}
_INTRO: Final = f"`make bench-serving`, part by part. {kept.BY_TURNS}"


if __name__ == "__main__":
    kept.main("serving", "Serving", _INTRO, str(__doc__), PARTS, list(PARTS), kept.by_turns(), [OF_THE_TURNS])
