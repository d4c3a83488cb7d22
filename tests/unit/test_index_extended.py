"""What grows behind a bundle's own items is as if it had been there from the start."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.item_rows import Item, table_of
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.index.extended import ExtendedIndex, GrowingVectors
from tastemaker.index.faiss_index import FaissIndex


@given(st.integers(1, 20), st.integers(0, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_first_and_further_items_are_searched_as_one(first: int, more: int, k: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(first + more, 4)).astype(np.float32)
    queries = generator.normal(size=(3, 4)).astype(np.float32)
    masks = [None, generator.random(first + more) < 0.7, generator.random(first + more) < 0.3]
    exclude = [generator.integers(0, first + more, 3).astype(np.int32) for _ in range(3)]
    extended = ExtendedIndex(FaissIndex.build(vectors[:first]), vectors[first:])
    whole = FaissIndex.build(vectors)
    assert (extended.num_items, extended.dim) == (whole.num_items, whole.dim)
    for allowed, gone in ((None, None), (masks, exclude), (masks[1], None), (None, exclude)):
        rows, scores = extended.search(queries, k, allowed, gone)
        expected_rows, expected_scores = whole.search(queries, k, allowed, gone)
        assert rows.tolist() == expected_rows.tolist()
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)
    some = generator.integers(0, first + more, k)
    assert len(extended.vectors()) == len(vectors)
    np.testing.assert_array_equal(extended.vectors()[some], vectors[some])


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), max_size=6))
def test_views_of_growing_vectors_never_change(steps: list[list[int]]) -> None:
    growing = GrowingVectors(2)
    model: list[list[float]] = []
    seen: list[tuple[np.ndarray, list[list[float]]]] = [(growing.vectors, model)]
    for at, step in enumerate(steps, 1):
        old = sorted(row for row in step if row < len(model))
        rows = np.array([*old, *range(len(model), len(model) + len(step) - len(old))], np.int32)
        model = model.copy()
        for row in rows.tolist():
            model[row : row + 1] = [[float(at), float(row)]]
        view = growing.write(rows, np.array([[at, row] for row in rows], np.float32))
        seen.append((view, model))
        for earlier, expected in seen:
            assert earlier.tolist() == expected


tags = st.lists(st.sampled_from("abc"), max_size=3, unique=True)
described = st.builds(
    lambda own, category, year: {"tags": own, "category": category, "created_at_ms": year * 31_556_952_000},
    tags, st.sampled_from(["x", "y", ""]), st.integers(0, 50),
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(described, min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 8), described), max_size=6)
)
def test_columns_with_written_rows_are_those_of_the_whole_table(
    items: list[dict[str, object]], writes: list[tuple[int, dict[str, object]]]
) -> None:
    def row(at: int, fields: dict[str, object]) -> dict[str, object]:
        return {"item_id": f"i{at}", "title": f"i{at}", **fields}

    table = pa.Table.from_pylist([row(at, fields) for at, fields in enumerate(items)], ITEMS_SCHEMA)
    schema = FeatureSchema.fit(table)
    columns, store = ItemColumns.from_items(table, schema), ItemStore(ItemFacts.from_items(table))
    model = [row(at, fields) for at, fields in enumerate(items)]
    for wanted, fields in writes:
        at = min(wanted, len(model))
        model[at : at + 1] = [row(at, fields)]
        item = Item(item_id=f"i{at}", title=f"i{at}", **fields)  # type: ignore[arg-type]
        written = table_of({f"i{at}": item.encode()})
        columns = columns.with_rows(np.array([at]), ItemColumns.from_items(written, schema))
        store.write(np.array([at], np.int32), written)
    whole = pa.Table.from_pylist(model, ITEMS_SCHEMA)
    expected = ItemColumns.from_items(whole, schema)
    for name in ("tag_offsets_I1", "tags_V", "year_I", "year_row_I", "category_row_I"):
        assert getattr(columns, name).tolist() == getattr(expected, name).tolist(), name
    facts, snapshot = ItemFacts.from_items(whole), store.snapshot
    assert snapshot.facts.index == facts.index
    assert [snapshot.facts.category(f"i{at}") for at in range(len(model))] == [r["category"] for r in model]
    np.testing.assert_array_equal(snapshot.facts.attributes.value_NF[:, 1:], facts.attributes.value_NF[:, 1:])
    assert len(snapshot.counters.value_NF) == len(snapshot) == len(model)
