"""A world whose decision log is written as the gateway writes it, and whose every policy's worth is known exactly.

Visitors differ in how readily they click (a factor of their own) and come several times; a request is of one of a few kinds,
each with candidates, ranker's scores and click probabilities. Lists are drawn by the reranker's own luck, whose propensities
are what is logged; each slot is looked at with a probability of its own.

Shape letters: T kinds of requests, N candidates, K slots, R requests, V variants, U visitors, D devices.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.stages.rerankers.luck import Draw, SamplingConfig, ShuffleConfig, drawn
from tastemaker.types import Float32, Float64, Int64, Query

START_MS = 1_760_000_000_000
WINDOW_MS = 1_800_000
NOW_MS = START_MS + 10 * 86_400_000
NUM_KINDS, NUM_CANDIDATES, NUM_SLOTS = 6, 8, 3
VARIANTS = ("a", "b", "c")
ARM_FACTOR = np.array([0.8, 1.0, 1.3])
DEVICES = ("mobile", "desktop")
DEVICE_SHARE = np.array([0.6, 0.4])
DEVICE_FACTOR = np.array([[1.4, 0.8, 0.7], [0.6, 0.9, 1.4]])
ARMS_STEP_MS = 60_000
"""Between two requests of a bandit: windows of the first ones close while it goes on."""


@dataclass(frozen=True)
class Log:
    """What a run left behind, as tables of the decision log's and the events' schemas."""

    decisions: pa.Table
    events: pa.Table
    kind_R: Int64


class World:
    """Kinds of requests, fixed by a seed. Runs of it differ in visitors and luck alone."""

    def __init__(self, seed: int) -> None:
        luck = np.random.default_rng([seed, 10])
        self.click_TN: Float64 = luck.uniform(0.05, 0.6, (NUM_KINDS, NUM_CANDIDATES))
        noisy_TN = np.clip(self.click_TN + luck.normal(0, 0.1, self.click_TN.shape), 0.02, 0.95)
        self.score_TN: Float32 = -np.sort(-noisy_TN, axis=1).astype(np.float32)
        order_TN = np.argsort(-noisy_TN, axis=1)
        self.click_TN = np.take_along_axis(self.click_TN, order_TN, axis=1)
        self.look_K = np.array([1.0, 0.7, 0.5])
        self.shuffle = ShuffleConfig(window=NUM_SLOTS, head=2 * NUM_SLOTS)
        self.sampling = SamplingConfig(share=0.1, temperature=2.0)

    def judged(self, kind: int) -> list[int]:
        """Another ranker's list: of half of the kinds the second and third change places, the others stay."""
        return [0, 2, 1] if kind % 2 else [0, 1, 2]

    def draw(self, kind: int) -> Draw:
        """What a list of that kind is drawn from; an item's row is its place among the candidates."""
        rows_N = np.arange(NUM_CANDIDATES, dtype=np.int32)
        return Draw(rows_N, self.score_TN[kind], 0, self.shuffle, self.sampling)

    @staticmethod
    def index_of(item_id: str) -> int | None:
        """The row of an item."""
        return int(item_id.rsplit("-", 1)[1])

    def items(self, kind: int, places: list[int]) -> list[str]:
        return [f"item-{kind}-{place}" for place in places]

    def worth(self) -> float:
        """Expected clicks of the judged lists: factors have mean 1, and kinds are evenly drawn."""
        each = [self.click_TN[t, self.judged(t)] @ self.look_K for t in range(NUM_KINDS)]
        return float(np.mean(each))

    def run(self, seed: int, num_visitors: int = 500) -> Log:
        """Visitors' requests, what was shown and what they clicked."""
        luck = np.random.default_rng([seed, 11])
        visitor_R = np.repeat(np.arange(num_visitors), luck.integers(1, 8, num_visitors))
        factor_R = luck.uniform(0.5, 1.5, num_visitors)[visitor_R]
        kind_R = luck.integers(NUM_KINDS, size=len(visitor_R))
        items, propensities, clicks = [], [], []
        for r, kind in enumerate(kind_R.tolist()):
            query = Query(np.empty(0, np.int32), seed=int(luck.integers(2**31)))
            order_N, chance_N = drawn(query, self.score_TN[kind], 0, self.shuffle, self.sampling)
            places = order_N[:NUM_SLOTS].tolist()
            chance_K = self.click_TN[kind, places] * self.look_K * factor_R[r]
            items.append(self.items(kind, places))
            propensities.append(chance_N[:NUM_SLOTS].astype(np.float32).tolist())
            clicks.append([items[-1][k] for k in np.flatnonzero(luck.random(NUM_SLOTS) < chance_K)])
        ids = [f"r{r}" for r in range(len(visitor_R))]
        users = [f"u{visitor}" for visitor in visitor_R.tolist()]
        rows: dict[str, list[Any]] = {
            "request_id": ids, "unit": users, "user_id": users, "item_ids": items,
            "slot_propensity": propensities, "slot_propensity_kind": ["exact"] * len(ids),
            "request": [json.dumps({"user_id": "nobody"})] * len(ids),
        }  # fmt: skip
        return Log(decisions_of(rows), events_of(ids, users, clicks), kind_R)


def arms_worth(weight_V: Float64, mean: float) -> float:
    """Expected clicks of a request under weights of the variants."""
    return float(weight_V @ ARM_FACTOR * mean)


def by_device_worth(share_DV: Float64, mean: float) -> float:
    """Expected clicks of a request under shares of the variants by device."""
    return float(mean * (DEVICE_SHARE @ (share_DV * DEVICE_FACTOR).sum(axis=1)))


def arms_run(
    seed: int,
    experiment: str,
    num_visitors: int = 400,
    num_epochs: int = 3,
    mean: float = 0.3,
    by_device: bool = False,
) -> Log:
    """A bandit's log: in each epoch every visitor who comes draws a variant anew, by shares that lean to what earned more.

    A visitor keeps the draw for the epoch's requests and the device for good; clicks of a request's one item depend on visitor
    and variant, and where asked on the device too.
    """
    luck = np.random.default_rng([seed, 12])
    factor_U = luck.uniform(0.3, 1.7, num_visitors)
    device_U = luck.choice(len(DEVICES), p=DEVICE_SHARE, size=num_visitors)
    factor_DV = DEVICE_FACTOR if by_device else np.tile(ARM_FACTOR, (len(DEVICES), 1))
    earned_V, asked_V = np.ones(3), np.full(3, 3.0)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("request_id", "unit", "user_id", "variant", "epoch", "propensity", "propensities", "item_ids", "request")
    }  # fmt: skip
    clicks: list[list[str]] = []
    for epoch in range(num_epochs):
        rate_V = earned_V / asked_V
        share_V = 0.1 + 0.7 * (rate_V**2 / (rate_V**2).sum())
        for unit in range(num_visitors):
            variant, device = int(luck.choice(3, p=share_V)), int(device_U[unit])
            for _ in range(int(luck.integers(0, 4))):
                clicked = luck.random() < mean * factor_U[unit] * factor_DV[device, variant]
                rows["request_id"].append(f"r{len(clicks)}")
                rows["unit"].append(f"u{unit}")
                rows["user_id"].append(f"u{unit}")
                rows["variant"].append(VARIANTS[variant])
                rows["epoch"].append(epoch)
                rows["propensity"].append(float(share_V[variant]))
                rows["propensities"].append(share_V.tolist())
                rows["item_ids"].append(["x"])
                rows["request"].append(
                    json.dumps({"user_id": "nobody", "context": {"device": DEVICES[device]}})
                )
                clicks.append(["x"] if clicked else [])
                asked_V[variant] += 1
                earned_V[variant] += clicked
    num = len(clicks)
    more = {"experiment": [experiment] * num}
    return Log(
        decisions_of(rows | more, ARMS_STEP_MS),
        events_of(rows["request_id"], rows["user_id"], clicks, ARMS_STEP_MS),
        np.zeros(num, np.int64),
    )


def decisions_of(rows: dict[str, list[Any]], step_ms: int = 1000) -> pa.Table:
    """Decision rows with what all have in common, one every `step_ms`; what is not named is null."""
    num = len(rows["request_id"])
    at_ms = [START_MS + step_ms * r for r in range(num)]
    rows = rows | {
        "decision_id": rows["request_id"], "origin": ["live"] * num, "catalogue": ["default"] * num, "bundle": ["b"] * num,
        "timestamp_ms": at_ms, "received_ms": at_ms,
    }  # fmt: skip
    columns = {name: rows.get(name, [None] * num) for name in DECISION_SCHEMA.names}
    return pa.table(columns, schema=DECISION_SCHEMA)


def events_of(
    request_ids: list[str], users: list[str], clicks: list[list[str]], step_ms: int = 1000
) -> pa.Table:
    """A click for each item, a minute after the answer."""
    found = [(r, item) for r, items in enumerate(clicks) for item in items]
    at = [START_MS + step_ms * r + 60_000 for r, _ in found]
    rows: dict[str, list[Any]] = {
        "event_id": [f"e{n}" for n in range(len(found))], "user_id": [users[r] for r, _ in found],
        "item_id": [item for _, item in found], "kind": ["click"] * len(found), "timestamp_ms": at, "received_ms": at,
        "request_id": [request_ids[r] for r, _ in found], "origin": ["live"] * len(found),
    }  # fmt: skip
    columns = {name: rows.get(name, [None] * len(found)) for name in EVENT_SCHEMA.names}
    return pa.table(columns, schema=EVENT_SCHEMA)
