"""Lists of two rankers' picks: what is drawn, where pins and new items stand, and picks of another bundle."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gateway_world import candidates, make_face
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.stages.overlay import FRESH, PINNED
from tastemaker_services.gateway.interleaving import drafted, in_rows_of, names_with

FACE = make_face()
FRESH_BIT, PINNED_BIT = (1 << names_with(FACE.source_names).index(name) for name in (FRESH, PINNED))


def test_the_same_request_draws_the_same_list() -> None:
    first, second = candidates(range(8)), candidates(range(7, -1, -1))
    one, again, other = (drafted(FACE, first, second, 8, "s", name) for name in ("r", "r", "r2"))
    assert one.item_index.tolist() == again.item_index.tolist()
    assert one.team is not None
    assert again.team is not None
    assert one.team.tolist() == again.team.tolist()
    assert one.item_index.tolist() != other.item_index.tolist()


rankings = st.permutations(range(10)).flatmap(lambda rows: st.integers(1, 10).map(lambda n: rows[:n]))


@given(rankings, rankings, st.integers(1, 10), st.sets(st.integers(0, 9), max_size=3))
def test_pins_stay_new_items_are_nobodys_and_scores_are_their_rankers(
    a: Sequence[int], b: Sequence[int], k: int, new: set[int]
) -> None:
    pinned = a[0]
    b = [pinned, *(row for row in b if row != pinned)]
    first, second = (masked(rows, pinned, new - {pinned}) for rows in (a, b))
    slate = drafted(FACE, first, second, k, "s", "r")
    assert slate.team is not None
    assert len(slate) == min(k, len({*a, *b}))
    assert (slate.item_index[0], slate.team[0]) == (pinned, -1)
    for row, score, team in zip(
        slate.item_index.tolist(), slate.score.tolist(), slate.team.tolist(), strict=True
    ):
        if team >= 0:
            own = (first, second)[team]
            assert score == own.score[own.item_index.tolist().index(row)]
            assert row not in new


def masked(rows: Sequence[int], pinned: int, new: set[int]) -> Any:
    masks = [PINNED_BIT | 1 if row == pinned else FRESH_BIT if row in new else 1 for row in rows]
    return replace(candidates(rows), source_mask=np.array(masks, np.uint32))


def test_a_slate_of_another_bundle_comes_into_this_ones_rows_and_sources() -> None:
    other = make_face("challenger")
    other.item_ids = [f"i{9 - row}" for row in range(10)]
    other.source_names = ("popular", "content")
    slate = replace(candidates([0, 3], mask=1 | 1 << 3), because=np.array([9, -1], np.int32))
    found = in_rows_of(FACE, other, slate)
    assert found is not None
    assert found.item_index.tolist() == [9, 6]
    assert [FACE.sources_of(mask) for mask in found.source_mask.tolist()] == [["popular", PINNED]] * 2
    assert found.because is not None
    assert found.because.tolist() == [0, -1]
    assert found.source_score_KS[:, 1].tolist() == slate.score.tolist()
    other.item_ids = [*other.item_ids[:3], "unheard", *other.item_ids[4:]]
    assert in_rows_of(FACE, other, slate) is None
