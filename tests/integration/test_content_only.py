"""A catalogue with items and without any event: trained, published, let through the gates, and recommended from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.importers import import_events, import_items, save_import
from tastemaker.data.item_rows import Item
from tastemaker.errors import ConfigError, DataError, UsageError
from tastemaker.features.user_state import Signal, UserState
from tastemaker.home import Home
from tastemaker.models.popularity import newest_first
from tastemaker.promotion.promoter import Promoter, PromotionOrder
from tastemaker.registry.client import Registry
from tastemaker.stages.live import LiveStages
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query
from tastemaker_training.plan.recipe import Recipe, read_recipe
from tastemaker_training.runs.publish import publish_run
from tastemaker_training.runs.run import train
from tastemaker_training.runs.run_record import open_run

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

NUM_ITEMS, NOW = 60, 1_700_000_000_000
TOPICS = ("violin sonata", "desert rally", "tomato soup")


def items_file(folder: Path) -> Path:
    rows = range(NUM_ITEMS)
    table = pa.table(
        {
            "item_id": [f"i{n}" for n in rows],
            "title": [f"{TOPICS[n % 3]} number {n}" for n in rows],
            "category": ["", "sport", "food"] * (NUM_ITEMS // 3),
            "created_at_ms": [None if n == 0 else NOW - 1000 * n for n in rows],
        }
    )
    pq.write_table(table, folder / "items.parquet")
    return folder / "items.parquet"


class Shop:
    """The home of a catalogue without events, its first version published."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.settings = Settings(home=self.home.root)
        self.store = BundleStore.of(self.settings, self.home)
        self.imported = import_items(items_file(folder))
        save_import(self.home, "default", self.imported)
        (self.run,) = train(self.settings, self.home, [read_recipe("content")], 1)
        self.published = publish_run(self.settings, self.home, open_run(self.home, "default", "content"))

    def bundle(self) -> Bundle:
        return Bundle.open(self.store, self.published["uri"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory, make_home) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    return Shop(make_home(folder / "home"), folder)


def recommended(shop: Shop, query: Query) -> list[int]:
    (found,) = Pipeline.from_bundle(shop.bundle()).recommend([query])
    return found.item_index.tolist()


def test_an_import_of_items_alone_has_no_events(shop: Shop):
    summary = shop.imported.summary
    assert (summary["num_items"], summary["num_interactions"], summary["first_timestamp_ms"]) == (60, 0, None)
    assert shop.run.offline()["rows"] == []


def test_without_history_the_newest_come_first(shop: Shop):
    query = Query(np.empty(0, np.int32), k=60, record=b"")
    (found,) = Pipeline.from_bundle(shop.bundle()).recommend([query], "retrieve")
    assert found.item_index.tolist() == [*range(1, NUM_ITEMS), 0]  # 0 is of unknown age
    assert recommended(shop, query)[:3] == [1, 2, 3]  # behind the first ones reranking sees to variety


def test_a_history_brings_what_is_like_it_and_a_record_outweighs_it(shop: Shop):
    rallies = recommended(shop, Query(np.array([1, 4], np.int32), k=6))
    assert {row % 3 for row in rallies} == {1}
    assert not {1, 4} & set(rallies)
    record = UserState(taken=[Signal(NOW, "i2", 1.0)]).encode()
    soups = recommended(shop, Query(np.array([1], np.int32), k=6, record=record, now_ms=NOW))
    assert {row % 3 for row in soups} == {2}


def test_each_process_of_a_graph_answers_by_its_part_alone(shop: Shop):
    query = Query(np.array([1, 4], np.int32), k=6)
    retriever, ranker, reranker = (
        Pipeline.from_bundle(shop.bundle(), frozenset({part})) for part in ("retrieve", "rank", "rerank")
    )
    found = retriever.retrieve([query])
    (ranked,) = ranker.rank([query], found)
    assert ranked.item_index.tolist() == found[0].item_index.tolist()
    (slate,) = reranker.finish([query], reranker.rerank([query], [ranked]))
    assert slate.item_index.tolist() == recommended(shop, query)


def test_the_gates_let_a_first_version_through(shop: Shop):
    registry = Registry(shop.settings, shop.home)
    promoter = Promoter(shop.settings, shop.home, registry, shop.store)
    promotion = promoter.promote(PromotionOrder(shop.published["version"], actor="t", reason="first"))
    outcomes = {gate.name: gate.outcome for gate in promotion.gates}
    assert [name for name, outcome in outcomes.items() if outcome == "passed"] == [
        "integrity",
        "contents",
        "index",
    ]
    assert set(outcomes.values()) == {"passed", "not applicable"}
    assert registry.aliases("default")["champion"].number == shop.published["version"]


def test_similar_items_are_those_of_like_content(shop: Shop):
    index = shop.bundle().index()
    rows, _ = index.search(index.vectors()[7:8], 6)
    assert {row % 3 for row in rows[0].tolist()} == {7 % 3}


def test_recipes_of_content_stand_alone_and_have_only_its_sources(shop: Shop):
    with pytest.raises(UsageError, match="train them apart"):
        train(shop.settings, shop.home, [read_recipe("content"), read_recipe("movielens")], 1)
    pipeline = {"ranker": False, "retrieval": {"sources": [{"name": "ease"}]}}
    with pytest.raises(ConfigError, match="without a ranker, sources among content, popular"):
        Recipe.parse({"name": "x", "pipeline": pipeline}, "test")


def test_events_that_come_later_are_trained_on_by_content_as_well(tmp_path: Path, shop: Shop):
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id,timestamp\nu,i9,5\nv,i9,6\n")
    save_import(shop.home, "default", import_events(events, None, NOW))
    (run,) = train(shop.settings, shop.home, [read_recipe("content")], 1)
    published = publish_run(shop.settings, shop.home, run)
    later = Bundle.open(shop.store, published["uri"])
    (found,) = Pipeline.from_bundle(later).recommend([Query(np.empty(0, np.int32), k=1)])
    assert later.item_ids[found.item_index[0]] == "i9"
    assert later.manifest.dataset.retrievers is not None


def test_an_empty_table_of_items_is_refused(tmp_path: Path):
    (tmp_path / "none.csv").write_text("item_id,title\n,x\n")
    with pytest.raises(DataError, match="item_id is empty in 1 of 1 rows"):
        import_items(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="does not exist"):
        import_items(tmp_path / "gone.csv")


def test_newest_first_by_hand():
    popularity = newest_first(np.array([5.0, np.nan, 9.0, 5.0]), tags=[["a"], [], [], []])
    assert popularity.trending().tolist() == [0.25, 0.0, 0.5, 0.25]  # half the share of the newest's place
    assert popularity.in_context({"tag": "a"}).tolist() == [1.25, 0.0, 0.5, 0.25]
    assert not popularity.counts_I.any()


def test_an_item_that_is_put_later_is_found_by_its_content(shop: Shop):
    live = LiveStages(shop.bundle())
    text = Item(item_id="new", title=f"{TOPICS[1]} number 99", category="sport").encode()
    live.take(ItemChanges("L", 1, False, ["new"], {"new": text}))
    (found,) = live.pipeline.retrieve([Query(np.array([1, 4, 7], np.int32), k=NUM_ITEMS)])
    assert NUM_ITEMS in found.item_index[: NUM_ITEMS // 3]
    rows, _ = live.similar(Query(np.empty(0, np.int32), k=6), NUM_ITEMS)
    assert {row % 3 for row in rows.tolist()} == {1}
