"""Parts of the graph that die or stand still."""

import pytest
from ray_noise import RAY_NOISE
from served_graph import Running, ids, process_of
from waiting import until

pytestmark = RAY_NOISE


@pytest.mark.slow
def test_a_stage_that_dies_is_replaced_by_a_rung_until_it_is_back(running: Running) -> None:
    process_of("ServeReplica:tastemaker:Ranker").kill()
    seen: set[str] = set()

    def recovered() -> bool:
        answer = running.recommend("known", k=5, deadline_ms=500, origin="simulator")  # past the cache
        assert len(ids(answer)) == 5
        seen.update(answer["degraded"])
        return bool(seen) and not answer["degraded"]

    until(recovered, "Serve to start the ranker again")
    assert "retrieval-order" in seen


@pytest.mark.slow
def test_a_hung_state_store_costs_history_not_answers(running: Running) -> None:
    valkey = process_of("valkey-server")
    valkey.suspend()
    try:
        answer = running.recommend("known", k=5, deadline_ms=500)
        assert "no-history" in answer["degraded"]
        assert len(ids(answer)) == 5
        event = {"event_id": "hung", "user_id": "u", "item_id": "é/1", "kind": "click", "timestamp_ms": 1}
        taken = running.client.post("/v1/events", json={"events": [event]})
        assert (taken.status_code, taken.json()["spooled"]) == (202, 1)
    finally:
        valkey.resume()
    until(lambda: running.recommend("known")["degraded"] == [], "histories to be read again")
