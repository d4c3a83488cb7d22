"""What the whole graph answers to requests that it cannot serve."""

import json
from typing import Any

import pytest
from bad_requests import JSON, bodies_of_any_kind, seen
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ray_noise import RAY_NOISE
from served_graph import (
    Running,
    ids,
)

pytestmark = RAY_NOISE


def test_errors_reach_the_client_as_problems(running: Running) -> None:
    response = running.client.post("/v1/recommendations", json={"user_id": "u", "colour": "red"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == "colour"


def test_no_bad_request_is_a_fault_of_the_graph(running: Running) -> None:
    questions = ["/v1/recommendations", "/v1/items/similar", "/v1/search", "/v1/explain"]

    @given(st.sampled_from(questions), bodies_of_any_kind)
    @hypothesis_settings(max_examples=120, deadline=None)
    def ask(path: str, body: Any) -> None:
        if isinstance(body, dict) and "item_id" in body:
            body = body | {"item_id": "é/3"}
        seen(running.client.post(path, content=json.dumps(body).encode(), headers=JSON))

    ask()
    assert running.client.get("/readyz").status_code == 200


def test_ten_thousand_exclusions_leave_the_rest_and_contradictions_nothing(running: Running) -> None:
    excluded = [f"é/{row}" for row in range(50)] + [f"nowhere/{n}" for n in range(9950)]
    answer = running.recommend("nobody", k=10, exclude=excluded)
    assert (len(excluded), answer["degraded"], answer["notes"]) == (10_000, [], [])
    assert set(ids(answer)) == {f"é/{row}" for row in range(50, 60)}
    noir = {"categories": ["Noir"]}
    nothing = running.recommend("nobody", filters=noir, exclude=[f"é/{row}" for row in range(2, 60, 3)])
    assert (nothing["items"], nothing["notes"], nothing["degraded"]) == ([], ["nothing-fits"], [])


@pytest.mark.parametrize("value", ["0", "0.000001", b"\xff"], ids=["off", "at-once", "no-text"])
@pytest.mark.parametrize(
    "name", ["x-request-timeout-seconds", "X-Session-ID", "serve_multiplexed_model_id", "x-request-id"]
)
def test_a_callers_headers_do_not_steer_serve(running: Running, name: str, value: str | bytes) -> None:
    """Read by Serve itself: 408 after a microsecond, 500 for what is no UTF-8."""
    response = running.client.post("/v1/recommendations", json={"user_id": "u"}, headers={name: value})
    assert (response.status_code, len(response.json()["items"])) == (200, 10)
