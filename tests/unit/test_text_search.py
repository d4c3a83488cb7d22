"""Items by what a text says of them, and the hard rules that hold there and for similar items."""

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.errors import CompatibilityError
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.stages.live import LiveStages
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query

NOBODY = np.empty(0, np.int32)
SPACE = ContentSpace.fit(items_table(), ContentConfig(dim=512))
"""Titles are the items' ids, and so unknown: they count as no text."""


def put(epoch: int, **titles: str | None) -> ItemChanges:
    rows = {
        item_id: None if title is None else Item(item_id=item_id, title=title, tags=["t1"]).encode()
        for item_id, title in titles.items()
    }
    return ItemChanges("L", epoch, False, list(titles), rows)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def live(store: BundleStore) -> LiveStages:
    made = LiveStages(open_bundle(store, space=SPACE))
    made.take(put(1, concert="a violin sonata", rally="the desert rally", soup="tomato soup"))
    return made


CONCERT, RALLY, SOUP = NUM_ITEMS, NUM_ITEMS + 1, NUM_ITEMS + 2


def found(live: LiveStages, text: str, share: float = 0.0, **query: object) -> list[int]:
    asked = Query(**{"history_L": NOBODY, "k": 3} | query)  # type: ignore[arg-type]
    return live.search(asked, live.encode_text(text), share)[0].tolist()


def test_put_items_are_found_by_their_words(live: LiveStages) -> None:
    assert found(live, "Violin!")[0] == CONCERT
    assert found(live, "rally in the desert")[0] == RALLY
    assert found(live, "soup of tomatoes")[0] == SOUP


def test_a_text_without_words_finds_nothing(live: LiveStages) -> None:
    assert found(live, "…!") == []


def test_hard_rules_hold_in_the_search(live: LiveStages) -> None:
    assert CONCERT not in found(live, "violin", exclude=np.array([CONCERT], np.int32), k=30)
    assert CONCERT not in found(live, "violin", history_L=np.array([CONCERT], np.int32), k=30)
    allowed = np.zeros(NUM_ITEMS + 3, bool)
    allowed[[2, SOUP]] = True
    assert set(found(live, "violin", allowed=allowed)) == {2, SOUP}
    live.take(put(2, concert=None))
    assert CONCERT not in found(live, "violin", k=30)


def test_a_share_of_the_users_taste_moves_the_list(live: LiveStages) -> None:
    past = np.array([RALLY], np.int32)
    likes_tags = found(live, "tomato soup", history_L=past, k=5)
    blended = found(live, "tomato soup", 0.9, history_L=past, k=5)
    assert likes_tags[0] == SOUP
    assert sum(row % 4 == 1 for row in blended if row < NUM_ITEMS) >= sum(
        row % 4 == 1 for row in likes_tags if row < NUM_ITEMS
    )
    assert blended != likes_tags
    assert found(live, "tomato soup", 0.9) == found(live, "tomato soup")  # of nobody nothing is known


def test_a_bundle_without_content_says_so(store: BundleStore) -> None:
    plain = LiveStages(open_bundle(store))
    with pytest.raises(CompatibilityError, match="search by text needs a content space"):
        plain.encode_text("violin")


def test_what_is_similar_heeds_the_hard_rules(live: LiveStages) -> None:
    allowed = np.ones(NUM_ITEMS + 3, bool)
    allowed[9] = False
    query = Query(np.array([1], np.int32), k=NUM_ITEMS, exclude=np.array([13], np.int32), allowed=allowed)
    rows = live.similar(query, 5)[0].tolist()
    assert not {1, 5, 9, 13} & {*rows}
    assert rows[0] % 4 == 1
