"""What a user was shown often and did not take sinks, and nothing else moves for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NOW_MS, event, state_of

from tastemaker.features.user_state import SHOWN_WINDOW_MS, UserState
from tastemaker.stages.fatigue import FatigueConfig, fatigue
from tastemaker.stages.rerankers.caps import CategoryCapConfig
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.stages.rerankers.mmr import MmrConfig
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.types import Candidates, Query

NUM_ITEMS = 20
NOTHING = np.empty(0, np.int32)
ROWS = {f"i{i}": i for i in range(NUM_ITEMS)}
WEEK_MS = int(SHOWN_WINDOW_MS)


def shown(**times: int) -> UserState:
    return state_of(*(event("u", item, "impression") for item, count in times.items() for _ in range(count)))


def asked(state: UserState | None, at_ms: int = NOW_MS, **fields: object) -> Query:
    record = None if state is None else state.encode()
    history = fields.pop("history_L", NOTHING)
    return Query(history_L=history, record=record, now_ms=at_ms, **fields)  # type: ignore[arg-type]


def ranked(num: int) -> Candidates:
    """Rows 0, 1, … with relevance from 1 down in equal steps."""
    score = (1 / (1 + np.exp(np.linspace(-3, 3, num)))).astype(np.float32)
    return Candidates(np.arange(num, dtype=np.int32), score, np.ones(num, np.uint32), score[:, None])


def items(categories: list[int] | None = None) -> RerankingItems:
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return RerankingItems(vectors, np.array(categories or [-1] * NUM_ITEMS, np.int32))


def order(config: RerankingConfig, query: Query, num: int = NUM_ITEMS) -> list[int]:
    [out] = Reranking(items([i % 3 for i in range(NUM_ITEMS)]), config, ROWS.get)([query], [ranked(num)])
    return out.item_index.tolist()


def test_what_impressions_cost_by_hand() -> None:
    """Free 2, .1 each, .35 at most. Shown 5 times: .3; 9 times: .35; a week later 5/e = 1.84 times: nothing."""
    config = FatigueConfig(free=2.0, strength=0.1, most=0.35)
    state = shown(i0=5, i1=9, i2=2, i9=8, unknown=9)
    rows = np.array([3, 1, 0, 2], np.int32)
    found = fatigue(asked(state), rows, ROWS.get, config)
    assert found is not None
    assert found.tolist() == pytest.approx([0, 0.35, 0.3, 0])
    later = fatigue(asked(state, NOW_MS + WEEK_MS), rows, ROWS.get, config)
    assert later is not None
    assert later.tolist() == pytest.approx([0, 0.1 * (9 / np.e - 2), 0, 0])


def test_what_was_taken_does_not_tire() -> None:
    query = asked(shown(i0=9, i1=9), history_L=np.array([0], np.int32), exclude_seen=False)
    found = fatigue(query, np.array([0, 1], np.int32), ROWS.get, FatigueConfig())
    assert found is not None
    assert found.tolist() == pytest.approx([0, 0.35])


def test_an_item_shown_in_vain_leaves_even_the_first_place() -> None:
    """Relevance 1, 3/4, 1/2, 1/4, 0: ten impressions of i0 cost 8 * .05 = .4, so that it stands between i1 and i2."""
    config = RerankingConfig(mmr=None, category_cap=None)
    assert order(config, asked(shown(i0=10)), 5) == [1, 0, 2, 3, 4]
    assert order(config, asked(shown(i0=2)), 5) == [0, 1, 2, 3, 4]


def test_without_a_record_or_row_of_nothing_changes() -> None:
    config = RerankingConfig()
    fresh = order(config, asked(None))
    assert order(config, asked(shown(i0=2, i1=1))) == fresh
    assert order(config.model_copy(update={"fatigue": None}), asked(shown(i0=99))) == fresh
    offline = Reranking(items([i % 3 for i in range(NUM_ITEMS)]), config)
    [out] = offline([asked(shown(i0=99))], [ranked(NUM_ITEMS)])
    assert out.item_index.tolist() == fresh


CONFIGS = st.builds(
    RerankingConfig,
    keep_top=st.integers(0, 4),
    fatigue=st.builds(FatigueConfig, strength=st.floats(0, 1), most=st.floats(0, 1)),
    mmr=st.none() | st.builds(MmrConfig, weight=st.floats(0, 1), head=st.integers(1, 25)),
    category_cap=st.none()
    | st.builds(CategoryCapConfig, page=st.integers(2, 6), max_per_category=st.integers(1, 4)),
)


@settings(max_examples=200, deadline=None)
@given(
    config=CONFIGS,
    times=st.dictionaries(st.integers(0, NUM_ITEMS - 1).map("i{}".format), st.integers(0, 9), max_size=6),
    item=st.integers(0, NUM_ITEMS - 1),
    more=st.integers(1, 9),
)
def test_more_impressions_never_move_an_item_up(
    config: RerankingConfig, times: dict[str, int], item: int, more: int
) -> None:
    before = order(config, asked(shown(**times)))
    after = order(config, asked(shown(**times | {f"i{item}": times.get(f"i{item}", 0) + more})))
    assert sorted(before) == sorted(after) == list(range(NUM_ITEMS))
    assert after.index(item) >= before.index(item)
