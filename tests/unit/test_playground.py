import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tastemaker.playground import page
from tastemaker.playground.demo import SIMULTANEOUS_LEVEL, summarise_experiment, summarise_traffic
from tastemaker.playground.memory import PeakMemory
from tastemaker.playground.targets import Target, experiment_targets, quality_targets


def experiment_report(low: float, high: float) -> dict[str, Any]:
    variants = [{"name": "a", "units": 30, "requests": 60}, {"name": "b", "units": 10, "requests": 20}]
    traffic = [
        {"new_units": [20, 2], "propensities": [0.9, 0.1]},
        {"new_units": [0, 0], "propensities": None},
        {"new_units": [10, 8], "propensities": [0.6, 0.4]},
    ]
    return {
        "hypothesis": "b is better",
        "allocation": "thompson",
        "units": 40,
        "requests": 80,
        "variants": variants,
        "lifts": [{"value": 0.1, "low": low, "high": high, "p_value": 0.2}],
        "srm_p_value": 0.5,
        "traffic": traffic,
    }


TRAFFIC = {"exact_lift": 0.05, "exact_rates": {"a": 1.0, "b": 1.05}, "parity": 1.0}


def test_an_experiment_stands_beside_its_truth() -> None:
    found = summarise_experiment(experiment_report(-0.1, 0.3), experiment_report(-0.2, 0.4), TRAFFIC)
    assert found["lift"]["low"] == -0.1
    assert found["lift"]["low_simultaneous"] == -0.2
    assert found["treatment_share"] == 0.25  # 10 of 40
    assert found["propensity_path"] == [{"units": 22, "propensity": 0.1}, {"units": 40, "propensity": 0.4}]
    assert found["exact_lift"] == 0.05


def test_four_intervals_hold_together_at_95_percent() -> None:
    assert pytest.approx(0.9875) == SIMULTANEOUS_LEVEL


@pytest.mark.parametrize(
    ("value", "limit", "better", "met"),
    [
        (1.0, 1.0, "higher", True),
        (0.9, 1.0, "higher", False),
        (1.0, 1.0, "lower", True),
        (1.1, 1.0, "lower", False),
    ],
)
def test_a_target_is_met_on_its_side(value: float, limit: float, better: Any, met: bool) -> None:
    assert Target("x", value, limit, better).met is met


def test_an_interval_that_misses_the_truth_misses_the_target() -> None:
    good = summarise_experiment(experiment_report(-0.1, 0.3), experiment_report(-0.2, 0.4), TRAFFIC)
    bad = summarise_experiment(experiment_report(0.2, 0.3), experiment_report(0.1, 0.4), TRAFFIC)
    found = {t.name: t for t in experiment_targets({"planted": good, "fixed": bad})}
    assert found["planted: interval covers the exact lift (1 = yes)"].met
    assert not found["fixed: interval covers the exact lift (1 = yes)"].met
    assert not found["planted loser found: upper bound of its lift"].met


def offline() -> dict[str, Any]:
    def row(system: str, ndcg: float) -> dict[str, Any]:
        metrics = dict.fromkeys(("recall@10", "recall@50", "map@10", "mrr", "novelty"), 0.3)
        bounds = {f"{m}_{side}": 0.1 for m in (*metrics, "ndcg@10") for side in ("low", "high")}
        return {"system": system, "ndcg@10": ndcg, "coverage": 0.1, "gini": 0.9} | metrics | bounds

    systems = (("two-tower", 0.09), ("pipeline before reranking", 0.11), ("pipeline", 0.108))
    paired = {"pipeline - best baseline": {"mean": 0.01, "low": 0.004, "high": 0.02}}
    return {"rows": [row(*system) for system in systems], "paired": paired}


def test_quality_targets_read_the_offline_table() -> None:
    found = {t.name: (round(t.value, 4), t.met) for t in quality_targets(offline())}
    assert found["two-tower NDCG@10"] == (0.09, True)
    assert found["pipeline over best baseline, lower bound of paired NDCG@10"] == (0.004, True)
    assert found["reranking's cost in NDCG@10"] == (0.002, True)


def simulated(requests: int) -> dict[str, Any]:
    return {
        "requests": requests,
        "failed": 0,
        "degraded": 1,
        "shown": requests * 10,
        "clicks": requests,
        "seconds": 2.0,
        "visitors": 5,
        "parity": 1.0,
        "latencies_ms": {"total": [1.0] * 50 + [3.0] * 50},
    }


def test_traffic_is_summed_over_experiments() -> None:
    found = summarise_traffic([simulated(100), simulated(300)], seconds=9.0)
    assert found["requests"] == 400
    assert found["requests_per_second"] == 100.0  # 400 in 4 s
    assert found["click_rate"] == pytest.approx(0.1)
    assert found["latency_ms"]["total"]["p50"] == 2.0  # half are 1, half 3


def test_the_page_is_self_contained_and_escapes() -> None:
    experiment = summarise_experiment(experiment_report(-0.1, 0.3), experiment_report(-0.2, 0.4), TRAFFIC)
    text = page.render(
        {
            "created": "2026-01-01<script>",
            "parameters": {"quick": True},
            "data": {"num_interactions": 3, "num_users": 2, "num_items": 2},
            "timings_seconds": {"total": 1.0},
            "versions": {"python": "3.11"},
            "peak_memory_mb": 10.0,
            "offline": offline(),
            "experiments": {"thompson": experiment},
            "serving": summarise_traffic([simulated(100)], 2.0),
            "targets": [Target("x", 1.0, 2.0, "higher").as_dict()],
        }
    )
    assert "2026-01-01&lt;script&gt;" in text
    assert "missed" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text)


def test_peak_memory_sees_a_child_process() -> None:
    code = "x = bytearray(64 * 2**20); print(len(x), flush=True); input()"
    with PeakMemory(seconds=60.0) as memory:
        before = memory.sample()
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert memory.sample() - before > 60 * 2**20
            child.communicate(b"\n")
    assert memory.peak_bytes > before
