"""Experiments, the holdout and the router on a cluster of three nodes."""

import asyncio

from clustered import State

from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.definition import Experiment, Thompson, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.experiments.layers import held_out
from tastemaker.experiments.router import Router
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect_async

NOW_MS = 1_750_000_000_000


def test_experiments_are_kept_changed_and_followed_on_a_cluster(clustered: State) -> None:
    store = ExperimentStore(clustered.client, clustered.keys)
    HoldoutStore(clustered.client, clustered.keys).put(Holdout(share=0.2))
    arms = (Variant(name="a", alias="champion"), Variant(name="b", alias="champion"))
    bandit = Experiment(
        name="bandit", hypothesis="h", salt="s", variants=arms, allocation=Thompson(floor=0.2), traffic=0.5
    )
    store.create(bandit)
    store.ramp("bandit", traffic=1.0)
    users = [f"u{n}" for n in range(40)]

    async def run() -> list[Assigned]:
        client = connect_async(clustered.url)
        try:
            router = Router(client, clustered.keys)
            return [await router.assign(Subject(user), NOW_MS, "live") for user in users + users]
        finally:
            await client.aclose()

    found = asyncio.run(run())
    assert found[:40] == found[40:]
    assert [one.held_out for one in found[:40]] == [held_out("holdout", 0.2, user) for user in users]
    assert {one.first.variant for one in found if one.first is not None} == {"a", "b"}
    assert [change.version for change in store.history("bandit")] == [1, 2]
