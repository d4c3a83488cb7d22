import numpy as np
import pyarrow as pa
import pytest

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.columns import FeatureSchema, ItemColumns, history_bag
from tastemaker.features.recency import recency_weights

JAN_1968, DEC_1968 = -63_158_400_000, -31_536_000_001
YEAR_2001 = 978_307_200_000


def items_table(**changes) -> pa.Table:
    columns = {
        "item_id": ["a", "b", "c"],
        "title": ["A", "B", "C"],
        "category": ["film", "", "book"],
        "tags": [["war", "drama"], [], ["drama"]],
        "created_at_ms": [JAN_1968, None, YEAR_2001],
    }
    return pa.table(columns | changes, schema=ITEMS_SCHEMA)


@pytest.fixture
def columns() -> ItemColumns:
    table = items_table()
    return ItemColumns.from_items(table, FeatureSchema.fit(table))


def test_vocabularies_are_alphabetical_and_years_span_the_catalogue():
    schema = FeatureSchema.fit(items_table())
    assert schema.tags == ("drama", "war")
    assert schema.categories == ("book", "film")
    assert (schema.first_year, schema.last_year) == (1968, 2001)
    # unknown, then 1968-69, 1970-71, … 2000-01
    assert (schema.num_tags, schema.num_categories, schema.num_years) == (2, 3, 18)


def test_columns_are_rows_of_tables_with_0_for_unknown(columns):
    assert columns.tag_offsets_I1.tolist() == [0, 2, 2, 3]
    assert columns.tags_V.tolist() == [1, 0, 0]
    assert columns.category_row_I.tolist() == [2, 0, 1]
    assert columns.year_row_I.tolist() == [1, 0, 17]
    assert columns.year_I[0] == 1968
    assert np.isnan(columns.year_I[1])


def test_a_moment_before_1970_falls_in_its_own_year():
    table = items_table(created_at_ms=[JAN_1968, DEC_1968, YEAR_2001 - 1])
    assert ItemColumns.from_items(table, FeatureSchema.fit(table)).year_I.tolist() == [1968, 1968, 2000]


def test_what_the_vocabulary_lacks_is_unknown_and_years_beyond_it_go_to_its_ends():
    schema = FeatureSchema(
        num_items=1, tags=("war",), categories=("film",), first_year=1990, last_year=1999, years_per_bucket=5
    )
    columns = ItemColumns.from_items(items_table(), schema)
    assert columns.tag_offsets_I1.tolist() == [0, 1, 1, 1]
    assert columns.tags_V.tolist() == [0]
    assert columns.category_row_I.tolist() == [1, 0, 0]
    assert columns.year_row_I.tolist() == [1, 0, 2]
    assert schema.num_years == 3


def test_a_catalogue_without_tags_or_years_has_columns_all_the_same():
    table = items_table(tags=[[], [], []], created_at_ms=[None, None, None], category=["", "", ""])
    schema = FeatureSchema.fit(table)
    columns = ItemColumns.from_items(table, schema)
    assert schema.num_tags == 1
    assert columns.year_row_I.tolist() == [0, 0, 0]
    assert columns.item_bags(np.array([0, 2]))["item_tags"].lengths.tolist() == [0, 0]


def test_item_bags_hold_identity_mean_of_tags_and_year(columns):
    bags = columns.item_bags(np.array([2, 0, 1]))
    assert bags["item"].values.tolist() == [2, 0, 1]
    assert bags["item_tags"].values.tolist() == [0, 1, 0]
    assert bags["item_tags"].lengths.tolist() == [1, 2, 0]
    assert bags["item_tags"].weights.tolist() == [1.0, 0.5, 0.5]
    assert bags["item_years"].values.tolist() == [17, 1, 0]


def test_a_history_bag_is_a_mean_of_the_newest_items_by_recency():
    lists = [np.array(items, np.int32) for items in ([9, 1, 2], [], [3])]
    bag = history_bag(lists, half_life=1.0, max_length=2)
    assert bag.values.tolist() == [1, 2, 3]  # 9 is too old
    assert bag.lengths.tolist() == [2, 0, 1]
    np.testing.assert_allclose(bag.weights, [1 / 3, 2 / 3, 1], rtol=1e-6)


def test_without_a_half_life_all_items_weigh_alike():
    assert recency_weights(3, None).tolist() == [1, 1, 1]
    assert recency_weights(0, 5.0).tolist() == []


def test_the_schema_survives_json():
    schema = FeatureSchema.fit(items_table())
    assert FeatureSchema.parse(schema.model_dump(mode="json"), "features.json") == schema
