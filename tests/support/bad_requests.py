"""Requests that no client should send, and what every answer to one has to be."""

import httpx
from hypothesis import strategies as st

JSON = {"content-type": "application/json"}
BY_BODY = [
    ("POST", "/v1/recommendations"), ("POST", "/v1/items/similar"), ("POST", "/v1/search"), ("POST", "/v1/explain"),
    ("POST", "/v1/events"), ("PUT", "/v1/items"), ("PUT", "/v1/users"), ("POST", "/v1/users/merge"),
]  # fmt: skip
BY_ADDRESS = [
    ("GET", "/v1/recommendations"), ("GET", "/v1/items/similar"), ("GET", "/v1/search"), ("GET", "/v1/explain"),
    ("DELETE", "/v1/items"), ("GET", "/v1/users"), ("DELETE", "/v1/users"), ("GET", "/v1/erasures/x"),
]  # fmt: skip
GOOD = {
    "user_id": "u", "item_id": "i", "k": 3, "q": "words", "context": {"device": "tv"}, "exclude": ["a"],
    "filters": {"categories": ["x"]}, "events": [{"event_id": "e"}], "items": [{"item_id": "i"}],
    "users": [{"user_id": "u"}], "from_user_id": "a", "into_user_id": "b", "deadline_ms": 50.0, "personal": 0.5,
    "session": ["b"], "cursor": "c", "priority": "batch", "explain": True,
}  # fmt: skip


def seen(response: httpx.Response) -> None:
    """The rule for every answer: none of 5xx, and a refusal says in problem+json what is wrong."""
    assert response.status_code < 500, response.text[:400]
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"].startswith("urn:tastemaker:problem:")
    assert problem["detail"]
    assert len(problem["detail"]) < 1000
    if response.status_code in (400, 413, 415, 422):
        assert problem["field"]


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["\x00", "a\nb", " ", "u" * 300, 10**400, -1, 1e308, "2026-11-25T10:00", "91,0"])
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
bodies_of_any_kind = st.one_of(
    values,
    st.dictionaries(st.sampled_from(sorted(GOOD)), values, max_size=6),
    st.dictionaries(st.sampled_from(sorted(GOOD)), values, max_size=3).map(lambda changed: GOOD | changed),
    st.sets(st.sampled_from(sorted(GOOD))).map(lambda keys: {key: GOOD[key] for key in keys}),
)
