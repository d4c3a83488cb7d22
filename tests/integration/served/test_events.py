"""What events change in the next answers, and who is in which experiment."""

import time

import httpx
import numpy as np
import pyarrow.compute as pc
import pytest
from ray_noise import RAY_NOISE
from served_graph import Running, ids, now_ms
from waiting import until

from tastemaker.events.archive import read_days
from tastemaker.events.history import read_history
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys

pytestmark = RAY_NOISE


def test_an_event_becomes_history_and_changes_the_next_answer(running: Running) -> None:
    event = {"event_id": "s1", "user_id": "new", "item_id": "é/20", "kind": "click"}
    event["timestamp_ms"] = int(time.time() * 1000)
    first = running.client.post(
        "/v1/events", json={"events": [event, event | {"event_id": "s2", "kind": "?"}]}
    )
    assert first.status_code == 202
    assert {key: first.json()[key] for key in ("accepted", "duplicate", "rejected")} == {
        "accepted": 1, "duplicate": 0, "rejected": 1,
    }  # fmt: skip
    again = running.client.post("/v1/events", json={"events": [event]}).json()
    assert (again["accepted"], again["duplicate"]) == (0, 1)
    keys = Keys(running.settings.catalogue, running.settings.state.partitions)
    with connect(url_of(running.settings, running.home)) as client:
        until(lambda: read_history(client, keys, "new") == ["é/20"], "the consumer to write the history")
    answer = running.recommend("new")
    assert ids(answer) == running.offline(answer["bundle"], [20], user="new")


def test_events_become_features_of_the_ranker_within_moments_and_the_log_keeps_them(running: Running) -> None:
    fields = {"user_id": "measured", "timestamp_ms": now_ms()}
    events = [fields | {"event_id": "m1", "item_id": "é/20", "kind": "click"}]
    events += [fields | {"event_id": f"m{n}", "item_id": "é/2", "kind": "impression"} for n in (2, 3)]
    assert running.client.post("/v1/events", json={"events": events}).json()["accepted"] == 3
    logged = running.home / "decisions" / running.settings.catalogue

    def features(user: str) -> dict[str, dict[str, float]]:
        """Those of the items of a new answer, by name, as the log has them."""
        request_id = running.recommend(user, k=40, origin="simulator")[
            "request_id"
        ]  # never an earlier answer
        where = pc.field("request_id") == request_id
        until(lambda: len(read_days(logged, DECISION_SCHEMA, "decision_id", where)), "the decision")
        (row,) = read_days(logged, DECISION_SCHEMA, "decision_id", where).to_pylist()
        values = np.reshape(row["features"], (len(row["item_ids"]), -1))
        return {
            item: dict(zip(row["feature_names"], value, strict=True))
            for item, value in zip(row["item_ids"], values, strict=True)
        }

    until(lambda: features("measured")["é/2"]["times_shown"] > 0, "the impressions among the features")
    found = features("measured")
    assert found["é/2"]["times_shown"] == pytest.approx(np.log(3), abs=0.01)
    assert found["é/2"]["session_length"] == pytest.approx(np.log(2))
    assert found["é/3"]["times_shown"] == 0
    until(lambda: features("somebody")["é/20"]["item_click_7d"] > 0, "the click among the item's features")
    assert features("somebody")["é/20"]["session_length"] == 0


def test_an_experiment_splits_visitors_and_each_variant_answers_from_its_bundle(running: Running) -> None:
    keys = Keys(running.settings.catalogue, running.settings.state.partitions)
    with connect(url_of(running.settings, running.home)) as client:
        store = ExperimentStore(client, keys)
        store.create(
            Experiment(
                name="split", hypothesis="they differ", salt="s", origin="simulator",
                variants=(Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
                allocation=Fixed(weights=(0.5, 0.5)),
            )
        )  # fmt: skip
        until(lambda: running.recommend(origin="simulator")["experiment"] == "split", "the router's snapshot")
        answers = [running.recommend(f"visitor {i}", origin="simulator", session=["é/3"]) for i in range(40)]
        bundles = {answer["variant"]: answer["bundle"] for answer in answers}
        assert set(bundles) == {"a", "b"}
        assert bundles["a"] != bundles["b"]
        for answer in answers:
            assert ids(answer) == running.offline(bundles[answer["variant"]], [3], visit=[3])
        assert (
            running.recommend("visitor 0")["experiment"] is None
        )  # a live request is none of the simulator's
        listed = httpx.get(f"{running.serving.admin_url}/admin/v1/experiments", trust_env=False).json()
        assert "split" in [experiment["name"] for experiment in listed["experiments"]]
        store.stop("split")
