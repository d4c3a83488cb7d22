"""A bundle whose content space is projected: put items, searches and users' content vectors are projected alike."""

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.features.content import ContentConfig, ContentSpace, ContrastiveConfig
from tastemaker.models.cold.item_content import fit_space
from tastemaker.models.log import Log
from tastemaker.stages.live import LiveStages
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query

CONFIG = ContentConfig(
    dim=64, metadata_dim=64, projection="contrastive",
    contrastive=ContrastiveConfig(dim=16, hidden=16, steps=150, batch_size=64, learning_rate=0.01, temperature=0.2),
)  # fmt: skip
NUM_BUNDLE = NUM_ITEMS


@pytest.fixture(scope="module")
def log() -> Log:
    """People take either items of the tags t0 and t1, or of t2 and t3, and never of both."""
    draws, taken = np.random.default_rng(0), []
    for user in range(40):
        likes = np.flatnonzero((np.arange(NUM_ITEMS) % 4 < 2) == (user % 2 == 0))
        taken.append(draws.permutation(likes)[:6])
    times = np.arange(240)
    return Log.of(np.repeat(np.arange(40), 6), np.concatenate(taken), num_users=40, num_items=NUM_ITEMS,
                  timestamp_ms_N=times, items=items_table())  # fmt: skip


def live_with(space: ContentSpace, folder: BundleStore) -> LiveStages:
    made = LiveStages(open_bundle(folder, space=space))
    put = {
        name: Item(item_id=name, title=name, category=f"c{tag}", tags=[f"t{tag}"]).encode()
        for name, tag in (("near", 1), ("far", 2))
    }
    made.take(ItemChanges("L", 1, False, list(put), put))
    return made


def scores_of_put_items(live: LiveStages) -> tuple[float, float]:
    """How near the items put later, of the tags t1 and t2, are to somebody who took items of the tag t0 alone."""
    query = Query(np.array([0, 4, 8], np.int32), k=NUM_ITEMS)
    rows, scores = live.search(query, live.encode_text("nothing"), 1.0)
    found = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    return found[NUM_BUNDLE], found[NUM_BUNDLE + 1]


def test_a_put_item_lies_near_what_is_taken_with_its_like(log, tmp_path):
    store = BundleStore(tmp_path)
    raw, _ = fit_space(log.items, CONFIG.unprojected(), log)
    projected, _ = fit_space(log.items, CONFIG, log)
    assert scores_of_put_items(live_with(raw, store)) == pytest.approx((0, 0), abs=0.2)  # no word in common
    near, far = scores_of_put_items(live_with(projected, store))
    assert near > 0.6
    assert far < 0.2
