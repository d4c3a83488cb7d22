import numpy as np
import pyarrow as pa
import pytest
import torch

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.examples import ExampleBatches
from tastemaker.features.negatives import NegativeSampler, NegativesConfig
from tastemaker.models.losses import sampled_softmax_loss
from tastemaker.models.tables import jagged
from tastemaker.models.two_tower import QueryEncoder, TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.types import Query

NUM_ITEMS = 12
CONFIG = TwoTowerConfig(dim=4, hidden=8, half_life=1.0, max_history=3)


@pytest.fixture(scope="module")
def columns() -> ItemColumns:
    table = pa.table(
        {
            "item_id": [str(i) for i in range(NUM_ITEMS)],
            "title": [""] * NUM_ITEMS,
            "category": [""] * NUM_ITEMS,
            "tags": [["even"] if i % 2 == 0 else ["odd", "third"] for i in range(NUM_ITEMS)],
            "created_at_ms": [i * 10**11 for i in range(NUM_ITEMS)],
        },
        schema=ITEMS_SCHEMA,
    )
    return ItemColumns.from_items(table, FeatureSchema.fit(table))


@pytest.fixture
def model(columns) -> TwoTower:
    torch.manual_seed(0)
    return TwoTower(CONFIG, two_tower_specs(CONFIG, columns.schema)).eval()


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_an_item_is_the_unit_sum_of_identity_mean_of_tags_and_year(model, columns):
    weights = model.tensors()
    ids, tags, years = (
        weights[f"tables.embedding_bags.{name}.weight"] for name in ("item_ids", "tags", "years")
    )
    expected = unit(ids[3] + (tags[1] + tags[2]) / 2 + years[columns.year_row_I[3]])
    np.testing.assert_allclose(model.encode_items(columns)[3], expected, atol=1e-6)  # float32


def test_a_query_without_correction_is_the_unit_mean_of_recent_items(model):
    with torch.no_grad():
        model.query_tower.out.weight.zero_()
    ids = model.tensors()["tables.embedding_bags.item_ids.weight"]
    expected = unit(ids[7] / 7 + ids[2] * 2 / 7 + ids[5] * 4 / 7)  # the oldest, 1, is one too many
    encoded = model.encode([np.array([1, 7, 2, 5], np.int32)])
    np.testing.assert_allclose(encoded, [expected], atol=1e-6)


def test_history_and_item_read_one_table_and_there_is_none_of_users(columns):
    specs = {spec.name: spec for spec in two_tower_specs(CONFIG, columns.schema)}
    assert specs["item_ids"].features == ("history", "item")
    assert specs["item_ids"].num_rows == NUM_ITEMS
    assert set(specs) == {"item_ids", "tags", "years"}


def test_a_few_steps_learn_what_follows_what(columns):
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"dim": 16})
    model = TwoTower(config, two_tower_specs(config, columns.schema))
    rows = pa.table(
        {
            "history": pa.array([[i] for i in range(NUM_ITEMS)] * 4, pa.list_(pa.int32())),
            "target": pa.array([(i + 1) % NUM_ITEMS for i in range(NUM_ITEMS)] * 4, pa.int32()),
            "rejected": pa.array([[]] * 4 * NUM_ITEMS, pa.list_(pa.int32())),
        }
    )
    sampler = NegativeSampler(np.full(NUM_ITEMS, 4), NegativesConfig(num_sampled=8))
    examples = ExampleBatches(columns, sampler, config.half_life, config.max_history)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for step in range(24):
        batch = examples.batch(rows, np.random.default_rng(step))
        loss = sampled_softmax_loss(
            model.query(jagged(batch.query_bags)), model.item(jagged(batch.item_bags)),
            torch.from_numpy(batch.item_M), torch.from_numpy(batch.log_q_M), config.temperature,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    scores = model.encode([np.array([i], np.int32) for i in range(NUM_ITEMS)]) @ model.encode_items(columns).T
    followers = (np.arange(NUM_ITEMS) + 1) % NUM_ITEMS
    assert (scores.argmax(axis=1) == followers).mean() >= 0.9


def test_state_round_trip_through_the_two_sides(model, columns):
    query, item = model.query_tensors(), model.item_tensors()
    assert not query.keys() & item.keys()
    again = TwoTower.from_state(model.config_dict(), query | item)
    histories = [np.array([3, 4], np.int32), np.array([0], np.int32)]
    np.testing.assert_array_equal(again.encode(histories), model.encode(histories))
    np.testing.assert_array_equal(again.encode_items(columns), model.encode_items(columns))


def test_the_query_side_alone_encodes_the_same(model):
    query = QueryEncoder.from_state(model.config_dict(), model.query_tensors())
    histories = [np.array([3, 4, 5, 6], np.int32), np.array([0], np.int32)]
    np.testing.assert_array_equal(query.encode(histories), model.encode(histories))
    assert [spec.name for spec in query.specs] == ["item_ids"]


def test_an_empty_history_gives_a_finite_vector(model):
    assert np.isfinite(model.encode([np.empty(0, np.int32)])).all()


def test_missing_weights_are_refused(model):
    with pytest.raises(CompatibilityError, match=r"two-tower weights.*tables\.embedding_bags\.tags\.weight"):
        TwoTower.from_state(model.config_dict(), model.query_tensors())


def test_weights_of_another_shape_are_refused(model):
    config = model.config_dict()
    config["config"]["hidden"] = 9
    with pytest.raises(CompatibilityError, match=r"two-tower weights.*size mismatch"):
        TwoTower.from_state(config, model.tensors())


def test_rare_and_unknown_items_share_row_zero(columns):
    torch.manual_seed(0)
    rows = np.array([1, 2, 0, 3] + [0] * (NUM_ITEMS - 4))
    model = TwoTower(CONFIG, two_tower_specs(CONFIG, columns.schema, 4), item_rows=rows).eval()
    assert len(model.tensors()["tables.embedding_bags.item_ids.weight"]) == 4
    seen, rare, later = (model.encode([np.array([item], np.int32)]) for item in (1, 2, NUM_ITEMS + 5))
    np.testing.assert_array_equal(rare, later)
    assert np.abs(seen - rare).max() > 1e-3
    again = QueryEncoder.from_state(model.config_dict(), model.query_tensors())
    np.testing.assert_array_equal(
        again.encode([np.array([1, 2], np.int32)]), model.encode([np.array([1, 2], np.int32)])
    )


def test_weights_of_the_release_before_have_a_row_for_each_item(model):
    tensors = model.tensors()
    del tensors["item_rows"]
    histories = [np.array([3, 4], np.int32)]
    old = TwoTower.from_state(model.config_dict(), tensors)
    np.testing.assert_array_equal(old.encode(histories), model.encode(histories))


def test_a_query_reads_its_context_where_the_config_asks_for_it(columns):
    config = CONFIG.model_copy(update={"context": ("hours", "devices")})
    torch.manual_seed(0)
    model = TwoTower(config, two_tower_specs(config, columns.schema)).eval()
    assert [spec.name for spec in model.specs] == ["item_ids", "tags", "years", "hours", "devices"]
    history = np.array([1, 2], np.int32)
    noon = Query(history, now_ms=12 * 3_600_000)
    vectors = model.encode_queries([noon, Query(history, context={"device": "tv"}), Query(history)])
    np.testing.assert_array_equal(vectors[2:], model.encode([history]))  # nothing known
    ids, hours, devices = (
        model.tensors()[f"tables.embedding_bags.{name}.weight"] for name in ("item_ids", "hours", "devices")
    )
    mean = ids[1] / 3 + ids[2] * 2 / 3
    with torch.no_grad():
        expected = model.query_tower(
            torch.from_numpy(np.stack([mean + hours[13] + devices[0], mean + hours[0] + devices[4]]))
        )
    np.testing.assert_allclose(vectors[:2], expected.numpy(), atol=1e-6)
