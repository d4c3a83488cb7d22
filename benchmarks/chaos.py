"""Faults under load: parts are killed, frozen, slowed, corrupted and taken away while requests go on, one fault after the other.

Requests arrive open-loop, whatever becomes of earlier ones. Each fault lasts at least 30 s; of each the table says what clients
got meanwhile and until all was whole again: faults of the service (5xx), requests without an answer in 2 s, how late answers
were by the clients' clocks, which rungs they came by, and when answers were whole again. `make chaos`.

Two processes of each stage and of the gateway serve a small catalogue from a home on a disk of 64 MiB; in the part `shards` the
retriever's two are shards, which have half of the catalogue each.
"""

import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import kept
import numpy as np
from chaos_faults import (
    Fault,
    Scene,
    corrupt_bundle,
    disk_full,
    frozen,
    killed,
    registry_away,
    slow,
    small_disk,
)
from chaos_load import LOST, Asked, requests
from serving_processes import running
from serving_world import make_world
from turns import Effort, Part

from tastemaker.config_serving import GatewaySettings

RATE: Final = 25.0
SECONDS: Final = 30.0
CALM_SECONDS: Final = 5.0
"""Answers are whole again once all of so long are."""
RECOVERY_SECONDS: Final = 90.0
NUM_ITEMS, NUM_USERS = 5_000, 300
DISK: Final = "64m"
DEADLINE_MS: Final = GatewaySettings().deadline_ms
TOLERANCE: Final = 1.2
STAGES: Final = ("retriever", "ranker", "reranker")
TWO_OF_EACH: Final = {f"TASTEMAKER_SERVING__{role.upper()}__REPLICAS": "2" for role in (*STAGES, "gateway")}
TWO_SHARDS: Final = TWO_OF_EACH | {
    "TASTEMAKER_SERVING__RETRIEVER__REPLICAS": "1",
    "TASTEMAKER_SERVING__RETRIEVER__SHARDS": "2",
}
FAULTS: Final[dict[str, Fault]] = {
    **{f"kill a {role}": killed(role) for role in (*STAGES, "gateway")},
    **{f"freeze a {role}": frozen(role) for role in (*STAGES, "gateway")},
    "kill Valkey": killed("valkey"),
    "freeze Valkey": frozen("valkey"),
    "MLflow's store is away": registry_away,
    "a corrupt bundle is promoted": corrupt_bundle,
    "the disk is full": disk_full,
    "retrieval takes ten times its time": slow("retriever"),
    "ranking takes ten times its time": slow("ranker"),
}
SHARD_FAULTS: Final[dict[str, Fault]] = {
    "kill one shard of two": killed("retriever"),
    "freeze one shard of two": frozen("retriever"),
}
MAY_BE_LOST: Final = {"freeze a gateway": 0.005}
"""Share of requests that may stay without an answer; of all other faults none may."""
PARTS: Final = {"faults": "chaos:faults", "shards": "chaos:shards"}
_INTRO: Final = "`make chaos`, part by part. Requests arrive open-loop; latencies count from the moment at which one was due."


class Seen(NamedTuple):
    """What clients saw of one fault; `recovered_seconds` counts from its end, or from its beginning where it has none."""

    asked: Sequence[Asked]
    recovered_seconds: float


def faults(effort: Effort) -> Part:
    """One fault after the other, on one served home."""
    return _measured(effort, "Faults", TWO_OF_EACH, FAULTS)


def shards(effort: Effort) -> Part:
    """The same where each half of the catalogue is one process's."""
    part = _measured(effort, "A catalogue in two shards: faults", TWO_SHARDS, SHARD_FAULTS)
    part.notes.append("`no-shard`: the answer has the other half's items alone.")
    return part


def _measured(
    effort: Effort, title: str, environment: Mapping[str, str], chosen: Mapping[str, Fault]
) -> Part:
    part = Part(
        f"{title} at {RATE:.0f} requests/s, deadline {DEADLINE_MS:.0f} ms",
        ("fault", "requests", "5xx", "429", "lost", "later than 1.2 deadlines", "p50, ms", "p99, ms", "whole", "rungs", "recovery, s"),
    )  # fmt: skip
    seconds = SECONDS if effort.divide == 1 else 8.0
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder), DISK) as disk:
        home = make_world(disk, NUM_ITEMS, NUM_USERS, "flat").home
        with (
            running("spread", home, environment, logs=Path(folder).parent) as served,
            requests(served.url, RATE, NUM_USERS) as log,
        ):
            scene = Scene(served, home)
            _add(part, "none", _watch(scene, None, log, seconds))
            for name, fault in chosen.items():
                print(f"  {name}", flush=True)
                _add(part, name, _watch(scene, fault, log, seconds))
    part.notes = [
        f"Lost: no answer in {2:.0f} s. Latencies count from the moment at which a request was due, by the client's clock, on the cores "
        f"that serve. Recovery: from the end of the fault (of a kill, from the kill) until answers have been whole for {CALM_SECONDS:.0f} s."
    ]
    return part


def _watch(scene: Scene, fault: Fault | None, log: list[Asked], seconds: float) -> Seen:
    _until_calm(log, time.time())
    began = time.time()
    if fault is None:
        time.sleep(seconds)
        return Seen([one for one in log if one.due >= began], 0.0)
    with fault(scene):
        time.sleep(seconds)
    ended = time.time()
    whole_again = _until_calm(log, began)
    asked = [one for one in log if one.due >= began]
    last_bad = max((one.due for one in asked if not one.is_whole), default=began)
    since = ended if last_bad > ended else began
    return Seen(asked, min(last_bad, whole_again) - since)


def _until_calm(log: Sequence[Asked], since: float) -> float:
    """Waits until all answers of the last seconds are whole; gives when."""
    give_up = time.time() + RECOVERY_SECONDS
    while time.time() < give_up:
        now = time.time()
        lately = [one for one in log[-round(4 * CALM_SECONDS * RATE) :] if one.due > now - CALM_SECONDS]
        if now > since + CALM_SECONDS and len(lately) > RATE and all(one.is_whole for one in lately):
            return now
        time.sleep(0.2)
    return time.time()


def _add(part: Part, name: str, seen: Seen) -> None:
    asked = seen.asked
    latency_ms = np.array([one.latency_ms for one in asked])
    num_faults, num_lost = sum(one.is_fault for one in asked), sum(one.status == LOST for one in asked)
    late = float(np.mean(latency_ms > TOLERANCE * DEADLINE_MS))
    rungs = Counter(rung for one in asked for rung in one.rungs)
    part.rows.append(
        (
            name, f"{len(asked)}", f"{num_faults}", f"{sum(one.status == 429 for one in asked)}", f"{num_lost}", f"{late:.1%}",
            f"{np.median(latency_ms):.0f}", f"{np.percentile(latency_ms, 99):.0f}",
            f"{np.mean([one.is_whole for one in asked]):.1%}",
            ", ".join(f"{rung} {number}" for rung, number in rungs.most_common(4)), f"{seen.recovered_seconds:.1f}",
        )
    )  # fmt: skip
    part.target(f"{name}: 5xx", num_faults, 0, "lower")
    part.target(f"{name}: lost, share", num_lost / max(len(asked), 1), MAY_BE_LOST.get(name, 0.0), "lower")
    within = float(np.percentile(latency_ms, 99))
    part.target(f"{name}: p99, ms", within, TOLERANCE * DEADLINE_MS, "lower")
    part.figures[name] = {
        "recovered_seconds": seen.recovered_seconds,
        "errors": dict(Counter(f"{one.status} {one.error[:120]}" for one in asked if one.status != 200)),
        "rungs": dict(rungs),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: what was started is stopped
    kept.main("chaos", "Faults under load", _INTRO, str(__doc__), PARTS, list(PARTS))
