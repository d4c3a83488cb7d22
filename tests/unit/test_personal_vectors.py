"""A user's content vector and session vector: by hand, and that their parts may come one at a time, in any order."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.user_state import Signal, UserState
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.stages.content import ContentSource, faded
from tastemaker.stages.retrieval import ContentSourceConfig
from tastemaker.stages.session import SessionConfig, SessionVectors, fold
from tastemaker.stages.signals import taken, under_way
from tastemaker.types import Query

MINUTE, DAY = 60_000, 86_400_000
NOW = 1_700_000_000_000
VECTORS = np.eye(4, dtype=np.float32)
ROWS = {item_id: row for row, item_id in enumerate("abcd")}
NOBODY = np.empty(0, np.int32)
numbers = st.floats(-1, 1, width=32)
steps = st.lists(st.tuples(st.lists(numbers, min_size=3, max_size=3), st.floats(-2, 4)), max_size=8)


def query(state: UserState | None = None, history: str = "", visit: str = "", now_ms: int = NOW) -> Query:
    rows = [np.array([ROWS[item] for item in text], np.int32) for text in (history, visit)]
    record = None if state is None else state.encode()
    return Query(rows[0], visit_L=rows[1], now_ms=now_ms, record=record)


def content_scores(asked: Query, **config: float) -> list[float]:
    source = ContentSource(
        "content", FaissIndex.build(VECTORS), ROWS.get, ContentSourceConfig.parse(config, "test")
    )
    return source.score([asked], [np.arange(4, dtype=np.int32)])[0].tolist()


def test_what_was_taken_counts_by_weight_and_a_tenth_less_each_day():
    state = UserState(
        taken=[Signal(NOW - 10 * DAY, "a", 1.0), Signal(NOW - 10 * DAY, "gone", 1.0), Signal(NOW, "b", 0.5)]
    )
    a, b = math.exp(-1), 0.5
    length = math.hypot(a, b)
    assert content_scores(query(state)) == pytest.approx([a / length, b / length, 0, 0], abs=1e-6)


def test_the_visit_counts_as_now_and_the_history_only_where_there_is_no_record():
    state = UserState(taken=[Signal(NOW - 10 * DAY, "a", 1.0)])
    a, c = math.exp(-1), 0.5
    length = math.hypot(a, c)
    assert content_scores(query(state, "bc", "c")) == pytest.approx([a / length, 0, c / length, 0], abs=1e-6)
    b, c = 0.5, 1.0
    length = math.hypot(b, c)
    expected = pytest.approx([0, b / length, c / length, 0], abs=1e-6)
    assert content_scores(query(None, "bc", "c"), half_life=1.0) == expected
    assert content_scores(query(UserState(), "bc"), half_life=1.0) == expected


def test_of_a_user_without_anything_content_says_nothing():
    source = ContentSource("content", FaissIndex.build(VECTORS), ROWS.get)
    rows, scores = source.propose([query(), query(UserState()), query(None, "a")], 3)
    assert (rows[:2] == -1).all()
    assert np.isinf(scores[:2]).all()
    assert rows[2].tolist() == [1, 2, 3]
    assert np.isnan(source.score([query()], [np.arange(4, dtype=np.int32)])[0]).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 5), st.integers(0, 300)), min_size=1, max_size=12),
    st.randoms(),
)
def test_the_content_vector_is_that_of_one_event_at_a_time(events, random):
    """Forward decay [Cormode et al. 2009]: a sum that each event in turn fades and adds to, in whatever order."""
    kept_D, kept_ms = np.zeros(4), 0
    for row, weight, days in random.sample(events, len(events)):
        at_ms = days * DAY
        last_ms = max(kept_ms, at_ms)
        kept_D = kept_D * math.exp(-0.1 * (last_ms - kept_ms) / DAY)
        kept_D += weight * math.exp(-0.1 * (last_ms - at_ms) / DAY) * VECTORS[row]
        kept_ms = last_ms
    rows, weights, days = (np.array(column) for column in zip(*events, strict=True))
    whole_D = faded(weights, days * DAY) @ VECTORS[rows]
    np.testing.assert_allclose(whole_D, kept_D, rtol=1e-6, atol=1e-9)


@given(steps, st.lists(numbers, min_size=3, max_size=3), st.integers(0, 8), st.sampled_from([0.01, 0.3, 1.0]))
def test_folding_all_events_is_folding_one_after_the_other(events, user, cut, rate):
    item_LD = np.array([vector for vector, _ in events], np.float32).reshape(-1, 3)
    weight_L = np.array([weight for _, weight in events], np.float64)
    user_D = np.array(user, np.float32)
    first = fold(user_D, item_LD[:cut], weight_L[:cut], rate)
    one_by_one = user_D
    for item_D, weight in zip(item_LD, weight_L, strict=True):
        one_by_one = fold(one_by_one, item_D[None], np.array([weight]), rate)
    whole = fold(user_D, item_LD, weight_L, rate)
    np.testing.assert_allclose(
        fold(first, item_LD[cut:], weight_L[cut:], rate), whole, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-12, atol=1e-12)


@given(st.lists(numbers, min_size=3, max_size=3), st.floats(-1, 1), st.floats(0.001, 0.1))
def test_a_small_step_lowers_the_loss(user, weight, rate):
    user_D, item_D = np.array(user, np.float32), np.array([0.6, 0.8, 0.0], np.float32)
    loss = [
        (math.tanh(u @ item_D) - weight) ** 2
        for u in (user_D, fold(user_D, item_D[None], np.array([weight]), rate))
    ]
    assert loss[1] <= loss[0] + 1e-12


class Fixed:
    """Stands in for a query tower: every user's long-term vector is the first axis."""

    def encode_queries(self, queries):
        return np.tile(VECTORS[0], (len(queries), 1))


def heeding(**config: float) -> SessionVectors:
    return SessionVectors(Fixed(), VECTORS, ROWS.get, SessionConfig.parse(config, "test"))


def test_a_session_moves_the_vector_towards_what_was_taken_and_away_from_what_was_not():
    state = UserState(taken=[Signal(NOW - MINUTE, "b", 0.5)], declined=[Signal(NOW - 2 * MINUTE, "c", -1.0)])
    (found,) = heeding(learning_rate=0.1, weight=1.0).encode_queries([query(state)])
    # u·c = 0: minus 0.1 * 2 * (0 + 1) along c; then u·b = 0: plus 0.1 * 2 * 0.5 along b
    expected = np.array([1.0, 0.1, -0.2, 0.0])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    session = expected / np.linalg.norm(expected)
    fused = 0.75 * VECTORS[0] + 0.25 * session
    (found,) = heeding(learning_rate=0.1, weight=0.25).encode_queries([query(state)])
    np.testing.assert_allclose(found, fused / np.linalg.norm(fused), atol=1e-6)


def test_without_record_or_session_the_long_term_vector_serves():
    over = UserState(
        taken=[Signal(NOW - 31 * MINUTE, "b", 1.0)], declined=[Signal(NOW - 31 * MINUTE, "c", -1.0)]
    )
    stranger = UserState(taken=[Signal(NOW, "gone", 1.0)])
    asked = [query(None, "ab"), query(UserState(), "ab"), query(over), query(stranger)]
    np.testing.assert_array_equal(heeding().encode_queries(asked), np.tile(VECTORS[0], (4, 1)))
    here = UserState(taken=[Signal(NOW, "b", 1.0)])
    np.testing.assert_array_equal(heeding(weight=0.0).encode_queries([query(here)]), VECTORS[:1])


def test_the_long_term_vector_serves_where_that_alone_is_wanted():
    asked = query(visit="b")
    plain, heeded = heeding().encode_queries([replace(asked, long_term_only=True), asked])
    assert plain.tolist() == VECTORS[0].tolist()
    assert heeded.tolist() != plain.tolist()


def test_the_requests_own_visit_is_a_session_and_only_the_newest_events_count():
    (found,) = heeding(learning_rate=0.1, weight=1.0).encode_queries([query(None, "ab", "b")])
    expected = np.array([1.0, 0.1, 0.0, 0.0])  # a click, as an event of it would be
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    both = UserState(taken=[Signal(NOW - 2, "c", 0.5), Signal(NOW - 1, "b", 0.5)])
    (newest,) = heeding(learning_rate=0.1, weight=1.0, max_events=1).encode_queries([query(both)])
    np.testing.assert_allclose(newest, found, atol=1e-6)


def test_an_item_of_the_visit_that_the_record_has_counts_once():
    state = UserState(taken=[Signal(NOW - 5, "b", 1.0)], declined=[Signal(NOW - 4, "c", -0.25)])
    signals = under_way(query(state, "b", "bc"), ROWS.get)
    assert signals.row_L.tolist() == [1, 2, 2]  # c was skipped, and is now in the visit
    assert signals.weight_L.tolist() == [1.0, -0.25, 0.5]
    assert taken(query(state, "b", "bc"), ROWS.get).at_ms_L.tolist() == [NOW - 5, NOW]
