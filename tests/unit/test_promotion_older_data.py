"""Gates where the champion was measured on other data: both are asked now, about the same users."""

import numpy as np
import pytest
from promotable import case, write_bundle
from small import movielens_folder

from tastemaker.bundle.store import BundleStore
from tastemaker.data.importers import import_events, save_import
from tastemaker.data.log import read_log
from tastemaker.home import Home
from tastemaker.promotion.exposure_gate import exposure
from tastemaker.promotion.offline_gates import offline, segments
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Candidates


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "bundles")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home.make(tmp_path_factory.mktemp("home") / "home")


class GroupPipeline:
    """Pipelines that list what a user of their own group of items had not, the good one; or of the next group, the bad one."""

    def __init__(self, bundle):
        self.shift = 0 if bundle.manifest.recipe.endswith("good") else 1
        self.item_ids = bundle.item_ids

    def recommend(self, queries):
        return [self.answer(query) for query in queries]

    def answer(self, query):
        had = [int(self.item_ids[row]) - 1 for row in query.history_L]
        group = (np.bincount(np.array(had) % 4).argmax() + self.shift) % 4
        wanted = [row for row, item in enumerate(self.item_ids) if (int(item) - 1) % 4 == group]
        rows = np.array([row for row in wanted if row not in set(query.history_L.tolist())], np.int32)
        nothing = np.zeros(len(rows), np.float32)
        return Candidates(rows, nothing, nothing.astype(np.uint32), nothing[:, None])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home whose catalogue has 80 users, of four groups of items, and the fingerprint of its data."""
    folder = tmp_path_factory.mktemp("filled")
    home = Home.make(folder / "home")
    imported = import_events(movielens_folder(folder / "ml"), None, 2_000_000_000_000)
    save_import(home, "default", imported)
    return home, read_log(home, "default").fingerprint


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"), [("bad", "good", "refused"), ("good", "bad", "passed")]
)
def test_a_champion_of_older_data_is_asked_now_about_the_users_that_the_version_holds_out(
    store, filled, monkeypatch, ours, theirs, outcome
):
    home, fingerprint = filled
    monkeypatch.setattr(Pipeline, "from_bundle", staticmethod(GroupPipeline))
    known = [str(n + 1) for n in range(60)]
    candidate = write_bundle(
        store,
        ids=known[:50],
        fingerprint=fingerprint,
        marker=ours,
        split={"num_test": 3, "num_validation": 2},
    )
    champion = write_bundle(store, ids=known[:49:-1] + known[:40], fingerprint="older", marker=theirs)
    asked = case(store, home, candidate, champion, sample_users=60)
    result = offline(asked)
    assert (result.outcome, result.numbers["users"]) == (outcome, 60)
    assert result.reason.endswith("over 60 users against the champion, measured now")
    assert abs(result.value) > 0.1
    assert segments(asked).reason.startswith("worst of 1: interactions 11 to 50, 60 users")
    assert exposure(asked).outcome == "passed"  # of the same groups of items, shifted


def test_without_the_versions_data_nothing_is_compared_with_a_champion_of_older_data(store, home, filled):
    split = {"num_test": 3, "num_validation": 2}
    champion = write_bundle(store, fingerprint="older")
    gone = write_bundle(store, fingerprint="f" * 64, split=split)
    assert "that of the version cannot be read" in offline(case(store, home, gone, champion)).reason
    assert "that of the version is here no more" in offline(case(store, filled[0], gone, champion)).reason
