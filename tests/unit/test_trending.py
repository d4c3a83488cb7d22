"""What trends, by country, as a source proposes it and as the gateway falls back to it."""

import numpy as np
import pytest
from gateway_world import NUM_ITEMS, make_face
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.trending import Ranked, Trending, TrendingRows
from tastemaker.models.popularity import fit_popularity
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.trending import TrendingSource
from tastemaker.types import Query

NOTHING = np.empty(0, np.int32)
POPULARITY = fit_popularity(np.array([0, 0, 1], np.int32), np.array([1, 2, 3]), NUM_ITEMS)


def ranked(**weights: float) -> Ranked:
    return Ranked(tuple(weights), np.log(np.array(list(weights.values()), np.float64)))


def trending(prior: float = 10.0, **countries: Ranked) -> Trending:
    return Trending(0, ranked(i7=30.0, i8=10.0), countries, prior)


def source(snapshot: Trending | None) -> TrendingSource:
    rows = TrendingRows({f"i{i}": i for i in range(NUM_ITEMS)}.get, lambda: snapshot)
    return TrendingSource("trending", PopularSource("popular", POPULARITY), rows)


def query(**fields: object) -> Query:
    return Query(history_L=fields.pop("history_L", NOTHING), **fields)  # type: ignore[arg-type]


def test_a_country_of_few_events_shows_what_trends_everywhere_and_one_of_many_its_own() -> None:
    """Everywhere i7 has 3/4, i8 1/4. With 2 for i8: .75 * 10 against .25 * 10 + 2; with 20: 7.5 against 22.5."""
    few, many = trending(DE=ranked(i8=2.0)), trending(DE=ranked(i8=20.0, i1=3.0))
    assert few.of("DE") == [("i7", 1.0), ("i8", pytest.approx(4.5 / 7.5))]
    assert many.of("DE") == [
        ("i8", 1.0),
        ("i7", pytest.approx(7.5 / 22.5)),
        ("i1", pytest.approx(3 / 22.5)),
    ]
    assert many.of("FR") == many.of("") == [("i7", 1.0), ("i8", pytest.approx(1 / 3))]
    assert many.weight == pytest.approx(40.0)


def test_weights_too_small_to_be_told_from_zero_keep_their_order() -> None:
    long_ago = Trending(0, Ranked(("a", "b"), np.array([-5000.0, -4999.0])), {}, 10.0)
    assert long_ago.of("") == [("b", 1.0), ("a", pytest.approx(np.exp(-1)))]
    assert long_ago.weight == 0.0
    assert Trending(0, ranked(), {}, 10.0).of("DE") == []


def test_the_source_proposes_by_country_under_the_hard_rules() -> None:
    live = source(trending(DE=ranked(i8=20.0, i1=3.0, unknown=9.0)))
    queries = [
        query(context={"country": "de"}),
        query(),
        query(context={"country": "DE"}, history_L=np.array([8], np.int32)),
        query(context={"country": "DE"}, allowed=np.arange(NUM_ITEMS) < 8),
        query(context={"country": "DE"}, allowed=np.ones(5, bool)),  # of a process that knows fewer rows
    ]
    rows_BK, score_BK = live.propose(queries, 3)
    assert rows_BK.tolist() == [[8, 7, 1], [7, 8, -1], [7, 1, -1], [7, 1, -1], [1, -1, -1]]
    assert score_BK[0].tolist() == pytest.approx([1.0, 7.5 / 22.5, 3 / 22.5])
    scores = live.score(queries[:2], [np.array([1, 2, 8], np.int32)] * 2)
    assert [found.tolist() for found in scores] == [
        pytest.approx([3 / 22.5, 0, 1]),
        pytest.approx([0, 0, 1 / 3]),
    ]


def test_without_a_snapshot_the_bundle_says_what_trends() -> None:
    for silent in (source(None), TrendingSource("trending", PopularSource("popular", POPULARITY))):
        rows_BK, _ = silent.propose([query(context={"country": "DE"})], 2)
        assert rows_BK.tolist() == [[0, 1]]
    assert not source(None).needs_history


def test_a_new_snapshot_is_seen_and_its_lists_are_made_once() -> None:
    asked: list[str] = []

    def row_of(item_id: str) -> int:
        asked.append(item_id)
        return int(item_id[1:])

    snapshots = [trending()]
    rows = TrendingRows(row_of, lambda: snapshots[-1])
    (first,), (again,) = rows.listed([{}]), rows.listed([{"country": "nowhere"}])
    assert first[0].tolist() == again[0].tolist() == [7, 8]
    assert asked == ["i7", "i8"]
    snapshots.append(Trending(1, ranked(i3=1.0), {}, 10.0))
    assert rows.listed([{}])[0][0].tolist() == [3]


@given(
    weights=st.dictionaries(
        st.integers(0, NUM_ITEMS - 1).map("i{}".format), st.floats(1e-6, 1e6), max_size=8
    ),
    local=st.dictionaries(st.integers(0, NUM_ITEMS - 1).map("i{}".format), st.floats(1e-6, 1e6), max_size=8),
    seen=st.sets(st.integers(0, NUM_ITEMS - 1)),
    k=st.integers(1, 12),
)
def test_the_gateways_list_is_full_best_first_and_within_the_rules(
    weights: dict[str, float], local: dict[str, float], seen: set[int], k: int
) -> None:
    snapshot = Trending(0, ranked(**weights), {"DE": ranked(**local)}, 10.0)
    face = make_face(trending=lambda: snapshot)
    asked = query(history_L=np.array(sorted(seen), np.int32), k=k, context={"country": "DE"})
    found = face.trending(asked)
    rows = found.item_index.tolist()
    assert len(rows) == len({*rows}) == min(k, NUM_ITEMS - len(seen))
    assert not {*rows} & seen
    assert (np.diff(found.score) <= 1e-6).all()
    listed = [int(item_id[1:]) for item_id, _ in snapshot.of("DE")]
    expected = [row for row in listed if row not in seen][:k]
    assert rows[: len(expected)] == expected


def test_the_gateways_list_names_its_source_where_the_bundle_has_it() -> None:
    face = make_face(trending=trending)
    found = face.trending(query(k=3))
    assert found.item_index.tolist() == [7, 8, 0]
    # the bundle of this test proposes by two_tower and popular alone
    assert [face.sources_of(mask) for mask in found.source_mask.tolist()] == [[], [], ["popular"]]
