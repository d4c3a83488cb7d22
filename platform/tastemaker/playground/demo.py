"""Runs the demo: prints each `tastemaker …` command, runs it in this process, and gathers what it returned."""

import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tastemaker.home import Home, write_bytes, write_json
from tastemaker.playground import page, targets
from tastemaker.playground.memory import PeakMemory
from tastemaker.playground.scenario import EXPERIMENTS, Scenario, experiment_file
from tastemaker.terminal import console, print_table

REPORT_SCHEMA = 1
SIMULTANEOUS_LEVEL = 1 - 0.05 / len(EXPERIMENTS)
"""Bonferroni: at this level each, all experiments' intervals hold together with 95%."""
_SHOWN_VERSIONS = ("tastemaker", "ray", "torch", "torchrec", "mlflow", "faiss-cpu", "implicit", "numpy")
Invoke = Callable[[Sequence[str]], Any]


class Demo:
    """One run. `invoke` runs one command of the CLI in this process and gives what it returned."""

    def __init__(self, invoke: Invoke, home: Home, scenario: Scenario) -> None:
        self.invoke, self.home, self.scenario = invoke, home, scenario
        self.timings: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """The whole demo; returns the report, which also lies in the home's `demo` folder."""
        started = time.monotonic()
        with PeakMemory() as memory:
            data = self._import()
            offline, versions = self._train()
            urls = self._serve()
            traffic, experiments = self._experiments()
        self.timings["total"] = time.monotonic() - started
        report = self._report(data, offline, versions, urls, traffic, experiments, memory.peak_bytes)
        self._write(report)
        return report

    def _import(self) -> dict[str, Any]:
        source = [str(self.scenario.source)] if self.scenario.source else []
        columns = ["--columns", str(self.scenario.columns)] if self.scenario.columns else []
        self._step("init", ["init"])
        summary: dict[str, Any] = self._step("import", ["data", "import", *source, *columns])
        return summary

    def _train(self) -> tuple[dict[str, Any], dict[str, Any]]:
        workers = ["--workers", str(self.scenario.workers)]
        quick = ["--quick"] if self.scenario.quick else []
        self._step("train", ["train", "movielens", "movielens-challenger", *workers, *quick])
        offline = self._step("evaluate", ["evaluate", "movielens"])
        champion = self._publish("movielens", "champion", "first release")
        challenger = self._publish("movielens-challenger", "challenger", "to be tested")
        planted = self._step("publish", ["publish", "movielens", "--plant-worse"])
        why = ["--force", "--reason", "planted for the demo: the gates refuse it"]
        self._step("publish", ["promote", str(planted["version"]), "--to", "planted", *why])
        return offline, {"champion": champion, "challenger": challenger, "planted": planted}

    def _publish(self, recipe: str, alias: str, reason: str) -> dict[str, Any]:
        published: dict[str, Any] = self._step("publish", ["publish", recipe])
        version = str(published["version"])
        self._step("publish", ["promote", version, "--to", alias, "--reason", reason])
        return published

    def _serve(self) -> dict[str, str]:
        self._step("serve", ["data", "load"])
        urls: dict[str, str] = self._step("serve", ["serve", "--no-wait"], shown=["serve"])
        return urls

    def _experiments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        folder = self.home / "demo" / "experiments"
        folder.mkdir(parents=True, exist_ok=True)
        run = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        traffic, results = {}, {}
        for number, kind in enumerate(EXPERIMENTS):
            name = f"{kind}-{run}"
            self._step(
                "experiments",
                ["experiment", "start", str(experiment_file(folder, name, kind, self.scenario))],
            )
            try:
                traffic[kind], results[kind] = self._experiment(name, number)
            finally:
                self._step("experiments", ["experiment", "stop", name])
        return traffic, results

    def _experiment(self, name: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = ["--visitors", str(self.scenario.visitors), "--seed", str(self.scenario.seed + number)]
        patience = ["--deadline-ms", str(self.scenario.deadline_ms)]
        traffic = self._step("traffic", ["simulate", name, *sizes, *patience])
        found = self._step("experiments", ["experiment", "report", name])
        strict = self._step("experiments", ["experiment", "report", name, "--level", str(SIMULTANEOUS_LEVEL)])
        return traffic, summarise_experiment(found, strict, traffic)

    def _step(self, step: str, arguments: Sequence[str], shown: Sequence[str] | None = None) -> Any:
        with self._timed(step):
            console.print(f"\n$ tastemaker {' '.join(shown or arguments)}", style="bold", markup=False)
            return self.invoke(arguments)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[step] = self.timings.get(step, 0.0) + time.monotonic() - started

    def _report(
        self,
        data: Mapping[str, Any],
        offline: Mapping[str, Any],
        bundles: Mapping[str, Any],
        urls: Mapping[str, str],
        traffic: Mapping[str, Mapping[str, Any]],
        experiments: Mapping[str, Mapping[str, Any]],
        peak_bytes: int,
    ) -> dict[str, Any]:
        quick = self.scenario.quick
        serving = summarise_traffic(list(traffic.values()), self.timings["traffic"])
        found = [] if quick or self.scenario.source else targets.quality_targets(offline)
        found += targets.experiment_targets(experiments) + targets.traffic_targets(serving, quick)
        found += targets.run_targets(self.timings["total"], peak_bytes, _install_seconds(), quick)
        return {
            "schema": REPORT_SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": self.scenario.as_dict(),
            "seeds": {"training": self.scenario.seed, "world": self.scenario.seed},
            "versions": _versions(),
            "timings_seconds": {step: round(seconds, 2) for step, seconds in self.timings.items()},
            "data": dict(data),
            "offline": dict(offline),
            "bundles": dict(bundles),
            "serving": serving,
            "experiments": {name: dict(result) for name, result in experiments.items()},
            "urls": dict(urls),
            "peak_memory_mb": round(peak_bytes / 2**20, 1),
            "targets": [target.as_dict() for target in found],
        }

    def _write(self, report: Mapping[str, Any]) -> None:
        folder = self.home / "demo"
        folder.mkdir(exist_ok=True)
        write_json(folder / "report.json", report)
        write_bytes(folder / "report.html", page.render(report).encode())


def summarise_traffic(runs: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """What the simulated visitors saw, over all experiments; latencies in milliseconds."""
    import numpy as np

    stages: dict[str, list[float]] = {}
    for run in runs:
        for stage, times in run["latencies_ms"].items():
            stages.setdefault(stage, []).extend(times)
    total = {
        key: sum(run[key] for run in runs) for key in ("requests", "failed", "degraded", "shown", "clicks")
    }
    busy = sum(run["seconds"] for run in runs)
    return {
        **total,
        "visitors_per_experiment": min(run["visitors"] for run in runs),
        "seconds": round(busy, 2),
        "seconds_with_world_and_replay": round(seconds, 2),
        "requests_per_second": total["requests"] / busy,
        "click_rate": total["clicks"] / max(total["shown"], 1),
        "parity": float(
            np.average([run["parity"] for run in runs], weights=[run["requests"] for run in runs])
        ),
        "latency_ms": {
            stage: {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}
            for stage, times in stages.items()
        },
    }


def summarise_experiment(
    found: Mapping[str, Any], strict: Mapping[str, Any], traffic: Mapping[str, Any]
) -> dict[str, Any]:
    """What the report says of one experiment: its estimate beside the world's truth.

    Args:
        found: The experiment's report at 95%.
        strict: The same at `SIMULTANEOUS_LEVEL`.
        traffic: What `tastemaker simulate` returned.
    """
    lift, wide = found["lifts"][0], strict["lifts"][0]
    units = [variant["units"] for variant in found["variants"]]
    so_far, path = 0, []
    for part in found["traffic"]:
        so_far += sum(part["new_units"])
        if part["propensities"]:
            path.append({"units": so_far, "propensity": part["propensities"][1]})
    return {
        "hypothesis": found["hypothesis"],
        "allocation": found["allocation"],
        "units": found["units"],
        "requests": found["requests"],
        "variants": found["variants"],
        "lift": {
            "lift": lift["value"],
            "low": lift["low"],
            "high": lift["high"],
            "p_value": lift["p_value"],
            "low_simultaneous": wide["low"],
            "high_simultaneous": wide["high"],
        },
        "srm_p_value": found["srm_p_value"],
        "treatment_share": units[1] / max(sum(units), 1),
        "propensity_path": path,
    } | {key: traffic[key] for key in ("exact_lift", "exact_rates", "parity")}


def print_summary(report: Mapping[str, Any], home: Home) -> None:
    """The end of the demo: latencies, experiments, targets, and where to look."""
    latency = report["serving"]["latency_ms"]
    print_table("Serving, ms", ["stage", "p50", "p95", "p99"], [[s, *t.values()] for s, t in latency.items()])
    rows = [
        [
            name,
            f"{r['lift']['lift']:+.1%} [{r['lift']['low']:+.1%}, {r['lift']['high']:+.1%}]",
            f"{r['exact_lift']:+.1%}",
            f"{r['srm_p_value']:.3f}",
            f"{r['treatment_share']:.0%}",
        ]
        for name, r in report["experiments"].items()
    ]
    print_table("Experiments", ["name", "lift of B over A, 95%", "exact lift", "SRM p", "traffic to B"], rows)
    marks = [
        [t["name"], f"{t['value']:.4g}", f"{'>=' if t['better'] == 'higher' else '<='} {t['target']:.4g}", "met" if t["met"] else "MISSED"]
        for t in report["targets"]
    ]  # fmt: skip
    print_table("Targets", ["figure", "value", "target", ""], marks)
    folder = home / "demo"
    console.print(f"report: {folder / 'report.html'} and {folder / 'report.json'}", markup=False)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _SHOWN_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _install_seconds() -> float | None:
    """How long `make install` took, where that made this environment."""
    stamp = Path(sys.prefix) / ".installed"
    try:
        return float(stamp.read_text())
    except (OSError, ValueError):
        return None
